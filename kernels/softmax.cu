// Softmax of each row of C values, and the cross entropy of a row and its label.
//
//   y_i = exp(x_i - m) / sum_j exp(x_j - m),  m = max x        dx_i = y_i (dy_i - sum_j dy_j y_j)
//   loss = log sum_j exp(x_j - m) - (x_label - m)              dx_i = dloss (y_i - [i = label])
//
// A warp a row, any C: forward three times over it (largest, sum, y), backward twice, from L1 after the first.
// Of the cross entropy m and 1 / sum are kept, in float32, and y is made again.
// Bytes, n values: forward 2 n sizeof(Real), backward 3 n sizeof(Real); cross entropy n and 2 n. Floor: bytes over the copy bandwidth.
#include <rows.cuh>

// f(c, values of V neighbours) over the row at p.
template <class F>
__device__ __forceinline__ void for_row(const Real* p, int C, F f) {
#pragma unroll 2
    for (int c = threadIdx.x % WARP * V; c < C; c += WARP * V) {
        float v[V];
        load_pack(p + c, v);
        f(c, v);
    }
}

// m and sum_j exp(x_j - m), in every lane.
__device__ __forceinline__ float2 largest_and_sum(const Real* x, int C) {
    float largest = load(x), sum = 0;
    for_row(x, C, [&](int, float(&v)[V]) {
#pragma unroll
        for (int j = 0; j < V; j++) largest = fmaxf(largest, v[j]);
    });
    largest = warp_max(largest);
    for_row(x, C, [&](int, float(&v)[V]) {
#pragma unroll
        for (int j = 0; j < V; j++) sum += __expf(v[j] - largest);
    });
    return make_float2(largest, warp_sum(sum));
}

extern "C" __global__ void __launch_bounds__(256) softmax(const Real* x, Real* y, int rows, int C) {
    int row = blockIdx.x * (MAX_THREADS / WARP) + (int)threadIdx.x / WARP;
    if (row >= rows) return;  // a whole warp
    x += (size_t)row * C, y += (size_t)row * C;

    float2 found = largest_and_sum(x, C);
    float largest = found.x, each = 1 / found.y;
    for_row(x, C, [&](int c, float(&v)[V]) {
#pragma unroll
        for (int j = 0; j < V; j++) v[j] = __expf(v[j] - largest) * each;
        store_pack(y + c, v);
    });
}

extern "C" __global__ void __launch_bounds__(256)
    softmax_backward(const Real* dy, const Real* y, Real* dx, int rows, int C) {
    int row = blockIdx.x * (MAX_THREADS / WARP) + (int)threadIdx.x / WARP;
    if (row >= rows) return;
    dy += (size_t)row * C, y += (size_t)row * C, dx += (size_t)row * C;

    float dot = 0;
    for_row(y, C, [&](int c, float(&v)[V]) {
        float d[V];
        load_pack(dy + c, d);
#pragma unroll
        for (int j = 0; j < V; j++) dot += d[j] * v[j];
    });
    dot = warp_sum(dot);
    for_row(y, C, [&](int c, float(&v)[V]) {
        float d[V];
        load_pack(dy + c, d);
#pragma unroll
        for (int j = 0; j < V; j++) v[j] *= d[j] - dot;
        store_pack(dx + c, v);
    });
}

// logits (rows, C), label (rows,) from 0 to C - 1 -> loss (rows,), kept (rows,): m and 1 / sum.
extern "C" __global__ void __launch_bounds__(256)
    cross_entropy(const Real* logits, const int* label, float* loss, float2* kept, int rows, int C) {
    int row = blockIdx.x * (MAX_THREADS / WARP) + (int)threadIdx.x / WARP;
    if (row >= rows) return;  // a whole warp
    logits += (size_t)row * C;
    float2 found = largest_and_sum(logits, C);
    if (threadIdx.x % WARP == 0) {
        loss[row] = logf(found.y) - (load(logits + label[row]) - found.x);
        kept[row] = make_float2(found.x, 1 / found.y);
    }
}

// dloss (rows,), or null where factor has it already.
extern "C" __global__ void __launch_bounds__(256)
    cross_entropy_backward(const float* dloss, const Real* logits, const int* label, const float2* kept, Real* dlogits,
                           float factor, int rows, int C) {
    int row = blockIdx.x * (MAX_THREADS / WARP) + (int)threadIdx.x / WARP;
    if (row >= rows) return;
    logits += (size_t)row * C, dlogits += (size_t)row * C;
    if (dloss) factor *= dloss[row];
    float2 found = kept[row];
    int at = label[row];
    for_row(logits, C, [&](int c, float(&v)[V]) {
#pragma unroll
        for (int j = 0; j < V; j++) v[j] = factor * (__expf(v[j] - found.x) * found.y - (c + j == at));
        store_pack(dlogits + c, v);
    });
}
