// The mean squared error over n elements.
//
//   loss = sum (x - t)^2 / n        dx = dloss 2 (x - t) / n
//
// squares: a block adds up every so many packs, a thread PACK neighbours (16 bytes) at a time, and its threads in a fixed
// order; mean: one block the partial sums, likewise. Nothing is written between but those: the backward reads x and t again.
// Bytes: forward 2 n sizeof(Real), backward 3 n sizeof(Real). Floor: bytes over the copy bandwidth.
#include <device.cuh>

constexpr int N = PACK<Real>;

__device__ __forceinline__ float square(float x) {
    return x * x;
}

// partial (blocks).
extern "C" __global__ void __launch_bounds__(256) squares(const Real* x, const Real* target, float* partial, int n) {
    __shared__ float scratch[8];
    int thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x, packs = n / N;
    float sum = 0;
#pragma unroll 4
    for (int i = thread; i < packs; i += threads) {
        float v[N], t[N], some = 0;
        load_pack(x + (size_t)i * N, v);
        load_pack(target + (size_t)i * N, t);
#pragma unroll
        for (int j = 0; j < N; j++) some += square(v[j] - t[j]);
        sum += some;
    }
    if (thread < n - packs * N) sum += square(load(x + packs * N + thread) - load(target + packs * N + thread));
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(256) mean(const float* partial, float* loss, int count, int n) {
    __shared__ float scratch[8];
    float sum = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) *loss = sum / n;
}

// dloss: a float in memory, or null where factor has it already; factor: 2 / n.
extern "C" __global__ void __launch_bounds__(256)
    squares_backward(const float* dloss, const Real* x, const Real* target, Real* dx, float factor, int n) {
    if (dloss) factor *= *dloss;
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (i + N <= n) {
        float v[N], t[N];
        load_pack(x + i, v);
        load_pack(target + i, t);
#pragma unroll
        for (int j = 0; j < N; j++) v[j] = factor * (v[j] - t[j]);
        store_pack(dx + i, v);
    } else {
        for (; i < n; i++) store(dx + i, factor * (load(x + i) - load(target + i)));
    }
}
