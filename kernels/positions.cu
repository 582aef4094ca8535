// What is added at all positions or of each position, and sums over positions and samples. x (N, P, C).
//
//   broadcast_add  y[n, p, c] = x[n, p, c] + e[n, c]         dx = dy,  de = sum_positions with factor 1
//   add_positions  y[n, i] = x[n, i] + weight[i], i = p, c   dx = dy,  dweight[i] = sum_n dy[n, i]
//   sum_positions  y[n, c] = factor sum_p x[n, p, c]         spread_positions  dx[n, p, c] = factor dy[n, c]
//
// A thread takes PACK neighbours (16 bytes) where they divide C or the sample, else one element. Sums are float32. The sum
// over samples: a thread adds them in their order. The sum over positions: a block takes a sample and a slice of channels,
// 8 threads across (128 bytes a row), 64 rows at a time; rows are then added by shuffles and through shared memory, always
// in one order.
//
// Bytes, n = N P C: the first two 2 n sizeof(Real), sums and spreads n. Floor: bytes over the copy bandwidth.
#include <device.cuh>

constexpr int N = PACK<Real>;

template <int V>
__device__ __forceinline__ void broadcast_add_of(const Real* x, const Real* e, Real* y, int n, int sample, int C) {
    long long i = thread_index() * V;
    if (i >= n) return;
    float v[V], w[V];
    load_pack(x + i, v);
    load_pack(e + (int)i / sample * C + (int)i % C, w);
#pragma unroll
    for (int j = 0; j < V; j++) v[j] += w[j];
    store_pack(y + i, v);
}

// sample: positions times C, the elements of one.
extern "C" __global__ void __launch_bounds__(256)
    broadcast_add(const Real* x, const Real* e, Real* y, int sample, int C, int n) {
    if (C % N == 0)
        broadcast_add_of<N>(x, e, y, n, sample, C);
    else
        broadcast_add_of<1>(x, e, y, n, sample, C);
}

// sample: positions times C, the elements of one.
template <int V>
__device__ __forceinline__ void spread_of(const Real* e, Real* y, float factor, int n, int sample, int C) {
    long long i = thread_index() * V;
    if (i >= n) return;
    float v[V];
    load_pack(e + (int)i / sample * C + (int)i % C, v);
#pragma unroll
    for (int j = 0; j < V; j++) v[j] *= factor;
    store_pack(y + i, v);
}

extern "C" __global__ void __launch_bounds__(256)
    spread_positions(const Real* e, Real* y, float factor, int sample, int C, int n) {
    if (C % N == 0)
        spread_of<N>(e, y, factor, n, sample, C);
    else
        spread_of<1>(e, y, factor, n, sample, C);
}

template <int V>
__device__ __forceinline__ void add_positions_of(const Real* x, const Real* weight, Real* y, int sample, int n) {
    long long i = thread_index() * V;
    if (i >= n) return;
    float v[V], w[V];
    load_pack(x + i, v);
    load_pack(weight + (int)i % sample, w);
#pragma unroll
    for (int j = 0; j < V; j++) v[j] += w[j];
    store_pack(y + i, v);
}

extern "C" __global__ void __launch_bounds__(256)
    add_positions(const Real* x, const Real* weight, Real* y, int sample, int n) {
    if (sample % N == 0)
        add_positions_of<N>(x, weight, y, sample, n);
    else
        add_positions_of<1>(x, weight, y, sample, n);
}

// A thread takes V elements of the sum and all samples in their order.
template <int V>
__device__ __forceinline__ void sum_samples(const Real* dy, float* dweight, int samples, int sample) {
    long long i = thread_index() * V;
    if (i >= sample) return;
    float sum[V] = {};
#pragma unroll 4
    for (int s = 0; s < samples; s++) {
        float v[V];
        load_pack(dy + (size_t)s * sample + i, v);
#pragma unroll
        for (int j = 0; j < V; j++) sum[j] += v[j];
    }
#pragma unroll
    for (int j = 0; j < V; j++) dweight[i + j] = sum[j];
}

extern "C" __global__ void __launch_bounds__(128)
    add_positions_backward(const Real* dy, float* dweight, int samples, int sample) {
    if (sample % N == 0)
        sum_samples<N>(dy, dweight, samples, sample);
    else
        sum_samples<1>(dy, dweight, samples, sample);
}

constexpr int SUM_THREADS = 512;  // engines/cuda/tensor_ops.py reads it

// LANES threads side by side take V channels each; 32 / LANES rows a warp.
template <int V, int LANES>
__device__ __forceinline__ void sum_positions_of(const Real* x, Real* y, float factor, int positions, int C, float* scratch) {
    constexpr int ROWS = SUM_THREADS / LANES, WARPS = SUM_THREADS / WARP;
    int lane = threadIdx.x % LANES, row = threadIdx.x / LANES;
    int c = (blockIdx.x * LANES + lane) * V;
    x += (size_t)blockIdx.y * positions * C;
    float sum[V] = {};
    if (c < C) {
#pragma unroll 4
        for (int p = row; p < positions; p += ROWS) {
            float v[V];
            load_pack(x + (size_t)p * C + c, v);
#pragma unroll
            for (int j = 0; j < V; j++) sum[j] += v[j];
        }
    }
#pragma unroll
    for (int j = 0; j < V; j++) {
#pragma unroll
        for (int mask = LANES; mask < WARP; mask *= 2) sum[j] += __shfl_xor_sync(ALL, sum[j], mask);
        if (threadIdx.x % WARP < LANES) scratch[threadIdx.x / WARP * LANES * V + lane * V + j] = sum[j];
    }
    __syncthreads();
    int first = blockIdx.x * LANES * V, i = threadIdx.x;
    if (i < LANES * V && first + i < C) {
        float total = 0;
        for (int w = 0; w < WARPS; w++) total += scratch[w * LANES * V + i];
        store(y + blockIdx.y * C + first + i, factor * total);
    }
}

// grid: (slices of 8 PACK channels, or of 32 where PACK does not divide C; samples)
extern "C" __global__ void __launch_bounds__(SUM_THREADS)
    sum_positions(const Real* x, Real* y, float factor, int positions, int C) {
    __shared__ float scratch[SUM_THREADS / WARP * 8 * 8];
    if (C % N == 0)
        sum_positions_of<N, 8>(x, y, factor, positions, C, scratch);
    else
        sum_positions_of<1, 32>(x, y, factor, positions, C, scratch);
}
