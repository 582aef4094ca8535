// Noise, and what a training step does with it before the network.
//
//   normal         z[n, e] ~ N(0, 1)                         integers   y[n] uniform on low .. low + range - 1
//   diffuse_batch  t_n uniform on 1 .. T,  eps ~ N(0, I),  x_t = a[t] x_0 + b[t] eps,  target = c[t] x_0 + d[t] eps
//   advance        counter += 1
//
// [DDPM] algorithm 1, lines 2 to 4; a row (a, b, c, d) of the table covers every kind of prediction, since each target
// is linear in x_0 and eps. A thread takes four elements of one sample, the words of one Philox counter; in
// `diffuse_batch` it works out t_n itself, ten rounds more, rather than wait for another kernel.
//
// Bytes an element: normal sizeof(Real), diffuse_batch 4 + 2 sizeof(Real). Operations: 10 integer ones an element for
// Philox, and in float64 a logarithm, a root, a sine and a cosine for each pair. Floor: the bytes over the copy
// bandwidth, or the operations over the float64 rate, whichever is longer.
#include <philox.cuh>

// sample_ids: of the samples, or null for 0 .. samples - 1. count: elements of one.
extern "C" __global__ void __launch_bounds__(256)
    normal(const int* sample_ids, Real* y, int samples, int count, PARAM Sequence sequence) {
    Place at = place_of(samples, count);
    if (!at.inside) return;
    float z[4];
    normal4(key_of(sequence), at.e / 4, sample_ids ? sample_ids[at.sample] : at.sample, z);
    put4(y + (size_t)at.sample * count + at.e, z, at);
}

extern "C" __global__ void __launch_bounds__(256)
    integers(const int* sample_ids, int* y, int samples, int low, unsigned long long range, PARAM Sequence sequence) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= samples) return;
    uint4 words = philox(key_of(sequence), 0, sample_ids ? sample_ids[i] : i);
    y[i] = (int)((unsigned)low + below(words.x, range));
}

// table (T + 1, 4): rows a, b, c, d of t. x0 (samples, count) -> t (samples,), x_t and target (samples, count).
struct DiffuseBatch {
    const float* x0;
    const float4* table;
    int* t;
    Real *x_t, *target;
    int samples, count, T;
    Sequence time, noise;
};

extern "C" __global__ void __launch_bounds__(256) diffuse_batch(PARAM DiffuseBatch of) {
    Place at = place_of(of.samples, of.count);
    if (!at.inside) return;
    int t = 1 + below(philox(key_of(of.time), 0, at.sample).x, of.T);
    if (at.e == 0) of.t[at.sample] = t;
    float4 row = of.table[t];
    size_t first = (size_t)at.sample * of.count + at.e;
    float x[4], eps[4], noisy[4], target[4];
    get4(of.x0 + first, x, at);
    normal4(key_of(of.noise), at.e / 4, at.sample, eps);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        noisy[j] = row.x * x[j] + row.y * eps[j];
        target[j] = row.z * x[j] + row.w * eps[j];
    }
    put4(of.x_t + first, noisy, at);
    put4(of.target + first, target, at);
}

extern "C" __global__ void __launch_bounds__(32) advance(int* counter) {
    if (threadIdx.x == 0) ++*counter;
}
