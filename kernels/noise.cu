// Noise, and what a training step does with it before the network.
//
//   normal    z[n, e] ~ N(0, 1)                              integers   y[n] uniform on low .. low + range - 1
//   noised    t_n uniform on 1 .. T,  eps ~ N(0, I),  x_t = a[t] x_0 + b[t] eps,  wanted = c[t] x_0 + d[t] eps
//   advance   counter += 1
//
// [DDPM] algorithm 1, lines 2 to 4; a row (a, b, c, d) of the table covers every kind of prediction, since each target
// is linear in x_0 and eps. A thread takes four elements of one sample, the words of one Philox counter; in `noised` it
// works out t_n itself, ten rounds more, rather than wait for another kernel.
//
// Bytes an element: normal sizeof(Real), noised 4 + 2 sizeof(Real). Operations: 10 integer ones an element for Philox,
// and in float64 a logarithm, a root, a sine and a cosine for each pair. Floor: the bytes over the copy bandwidth, or
// the operations over the float64 rate, whichever is longer.
#include <philox.cuh>

// index: the samples' numbers, or null for 0 .. samples - 1. count: elements of one.
extern "C" __global__ void __launch_bounds__(256)
    normal(const int* index, Real* y, int samples, int count, unsigned low, unsigned high, unsigned stream,
           const int* step_at, int step) {
    Place at = place_of(samples, count);
    if (!at.inside) return;
    float z[4];
    normal4(key_of(low, high, stream, step_at, step), at.e / 4, index ? index[at.sample] : at.sample, z);
    put4(y + (size_t)at.sample * count + at.e, z, at);
}

extern "C" __global__ void __launch_bounds__(256)
    integers(const int* index, int* y, int samples, int least, unsigned long long range, unsigned low, unsigned high,
             unsigned stream, const int* step_at, int step) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= samples) return;
    uint4 words = philox(key_of(low, high, stream, step_at, step), 0, index ? index[i] : i);
    y[i] = (int)((unsigned)least + below(words.x, range));
}

// table (T + 1, 4): rows a, b, c, d of t. x0 (samples, count) -> t (samples,), x_t and wanted (samples, count).
extern "C" __global__ void __launch_bounds__(256)
    noised(const float* x0, const float4* table, int* t, Real* x_t, Real* wanted, int samples, int count, int T,
           unsigned low, unsigned high, unsigned time_stream, unsigned noise_stream, const int* step_at, int step) {
    Place at = place_of(samples, count);
    if (!at.inside) return;
    Key key = key_of(low, high, time_stream, step_at, step);
    int own = 1 + below(philox(key, 0, at.sample).x, T);
    if (at.e == 0) t[at.sample] = own;
    float4 row = table[own];
    size_t first = (size_t)at.sample * count + at.e;
    float x[4], eps[4], noisy[4], goal[4];
    get4(x0 + first, x, at);
    key.stream = noise_stream;
    normal4(key, at.e / 4, at.sample, eps);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        noisy[j] = row.x * x[j] + row.y * eps[j];
        goal[j] = row.z * x[j] + row.w * eps[j];
    }
    put4(x_t + first, noisy, at);
    put4(wanted + first, goal, at);
}

extern "C" __global__ void __launch_bounds__(32) advance(int* counter) {
    if (threadIdx.x == 0) ++*counter;
}
