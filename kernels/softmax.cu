// Softmax of each row of C values.
//
//   y_i = exp(x_i - m) / sum_j exp(x_j - m),  m = max x        dx_i = y_i (dy_i - sum_j dy_j y_j)
//
// A warp a row, any C: forward three times over it (largest, sum, y), backward twice, from L1 after the first.
// Bytes, n values: forward 2 n sizeof(Real), backward 3 n sizeof(Real). Floor: bytes over the copy bandwidth.
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

extern "C" __global__ void __launch_bounds__(256) softmax(const Real* x, Real* y, int rows, int C) {
    int row = blockIdx.x * (MAX_THREADS / WARP) + (int)threadIdx.x / WARP;
    if (row >= rows) return;  // a whole warp
    x += (size_t)row * C, y += (size_t)row * C;

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
    float each = 1 / warp_sum(sum);
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
