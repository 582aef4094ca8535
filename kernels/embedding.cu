// Rows of a table, and the sinusoidal timestep embedding [Attention] section 3.5.
//
//   embedding        y[i] = weight[index[i]]            dweight[r] = the sum of dy[i] over all i with index[i] = r
//   time_embedding   angle = t 10000^(-i / last), sin and cos side by side, in float64
//
// embedding: a thread takes PACK channels of one row (16 bytes), or one channel. Its backward: a block takes one row of
// the table and 128 channels and walks the indices in their order, so there are no atomics and two runs are equal; the
// indices come from the cache, since all blocks read the same.
//
// Bytes: embedding 2 n C sizeof(Real), backward rows C 4 + n C sizeof(Real) (and rows C / 128 reads of the n indices,
// from the cache: for tables of classes, not of words); time_embedding N channels sizeof(Real). Floor: one launch.
#include <device.cuh>

constexpr int V = PACK<Real>;

extern "C" __global__ void __launch_bounds__(256)
    embedding(const int* index, const Real* weight, Real* y, int C, int n) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (C % V == 0) {
        i *= V;
        if (i >= n) return;
        *(uint4*)(y + i) = *(const uint4*)(weight + (size_t)index[(int)i / C] * C + (int)i % C);
    } else {
        if (i >= n) return;
        y[i] = weight[(size_t)index[(int)i / C] * C + (int)i % C];
    }
}

// grid: (rows, slices of 128 channels)
extern "C" __global__ void __launch_bounds__(128)
    embedding_backward(const Real* dy, const int* index, float* dweight, int n, int C) {
    int row = blockIdx.x, c = blockIdx.y * blockDim.x + threadIdx.x;
    if (c >= C) return;
    float sum = 0;
    for (int i = 0; i < n; i++)
        if (index[i] == row) sum += load(dy + (size_t)i * C + c);
    dweight[(size_t)row * C + c] = sum;
}

// A thread an angle. last: half - 1 or half; sine, cosine: where each begins in a row. t (N,) -> y (N, channels).
extern "C" __global__ void __launch_bounds__(256)
    time_embedding(const int* t, Real* y, int n, int channels, int last, int sine, int cosine) {
    int half = channels / 2, place = blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= n * half) return;
    int sample = place / half, i = place % half;
    constexpr double LOG_10000 = 9.210340371976182736, PER_PI = 0.3183098861837906715;
    // in half turns, whose sine needs no reduction by pi
    double angle = t[sample] * exp(-LOG_10000 * i / last) * PER_PI, s, c;
    sincospi(angle, &s, &c);
    y += (size_t)sample * channels;
    store(y + sine + i, (float)s);
    store(y + cosine + i, (float)c);
    if (channels % 2 && i == 0) store(y + channels - 1, 0);
}
