// Twice the size by repetition, half the size by averaging, any size by bilinear interpolation. With x small (rows, W, C), rows = N H, and y of twice its
// size:
//
//   upsample_nearest  y[2h+i, 2w+j] = x[h, w]                      backward: dx = the sum of the four dy
//   average_pool      x[h, w] = mean of the four y[2h+i, 2w+j]     backward: dy[2h+i, 2w+j] = dx / 4
//
// So there are two motions, one to four and four to one, each with a factor. A thread takes one place of the small
// image and PACK neighbours in C (16 bytes), or one channel where PACK does not divide C. Bytes: 5 sizeof(Real) for
// each element of the small image. Floor: bytes over the copy bandwidth.
//
//   resize_bilinear   y[i, j] = sum_hw A[i, h] B[j, w] x[h, w]    backward: dx[h, w] = sum_ij A[i, h] B[j, w] dy[i, j]
//
// Place i of L along an axis of S pixels lies at u = (i + 1/2) S / L - 1/2, held within 0 .. S - 1, and
// A[i, h] = max(0, 1 - |u - h|): two taps an axis forward, of integers, exact but for one rounding. Backward a thread
// gathers from the places that read its pixel, in their order. A thread an element of the result, PACK neighbours as
// above. Bytes: (x + y) sizeof(Real) where the taps find the cache. Floor: bytes over the copy bandwidth.
#include <device.cuh>

constexpr int N = PACK<Real>;

// The element of the large image at the upper left of the four that belong to element i of the small one.
__device__ __forceinline__ size_t corner(int i, int W, int C) {
    int c = i % C, w = i / C % W, row = i / C / W;
    return ((size_t)row * 4 * W + 2 * w) * C + c;  // row 2 row of 2 W pixels
}

template <int V>
__device__ __forceinline__ void spread(const Real* small, Real* large, float factor, int W, int C, int n) {
    long long i = thread_index() * V;
    if (i >= n) return;
    float x[V];
    load_pack(small + i, x);
#pragma unroll
    for (int j = 0; j < V; j++) x[j] *= factor;
    Real *above = large + corner((int)i, W, C), *below = above + (size_t)2 * W * C;
    store_pack(above, x), store_pack(above + C, x);
    store_pack(below, x), store_pack(below + C, x);
}

template <int V>
__device__ __forceinline__ void gather(const Real* large, Real* small, float factor, int W, int C, int n) {
    long long i = thread_index() * V;
    if (i >= n) return;
    const Real *above = large + corner((int)i, W, C), *below = above + (size_t)2 * W * C;
    float a[V], b[V], c[V], d[V];
    load_pack(above, a), load_pack(above + C, b);
    load_pack(below, c), load_pack(below + C, d);
#pragma unroll
    for (int j = 0; j < V; j++) a[j] = (a[j] + b[j] + (c[j] + d[j])) * factor;
    store_pack(small + i, a);
}

// W, n: the width and the elements of the small image.
extern "C" __global__ void __launch_bounds__(256)
    spread_blocks(const Real* small, Real* large, float factor, int W, int C, int n) {
    if (C % N == 0)
        spread<N>(small, large, factor, W, C, n);
    else
        spread<1>(small, large, factor, W, C, n);
}
extern "C" __global__ void __launch_bounds__(256)
    gather_blocks(const Real* large, Real* small, float factor, int W, int C, int n) {
    if (C % N == 0)
        gather<N>(large, small, factor, W, C, n);
    else
        gather<1>(large, small, factor, W, C, n);
}

// x (N, H, W, C), y (N, rows, columns, C); n: the elements of the result, which is y forward and x backward.
struct Resize {
    int H, W, rows, columns, C, n;
};

// u of place i, times 2 L.
__device__ __forceinline__ int place(int i, int S, int L) {
    return min(max((2 * i + 1) * S - L, 0), 2 * L * (S - 1));
}
__device__ __forceinline__ float weight_of(int i, int h, int S, int L) {
    int away = abs(place(i, S, L) - 2 * L * h);
    return away >= 2 * L ? 0 : (float)(2 * L - away) / (2 * L);
}

// The places whose u may lie within (h - 1, h + 1).
struct Range {
    int first, last;
};
__device__ __forceinline__ Range readers(int h, int S, int L) {
    int first = h == 0 ? 0 : max(0, (L * (2 * h - 1) - S) / (2 * S));
    int last = h == S - 1 ? L - 1 : min(L - 1, (L * (2 * h + 3) - S) / (2 * S) + 1);
    return {first, last};
}

template <int V>
__device__ __forceinline__ void resize(const Real* x, Real* y, const Resize& of) {
    long long index = thread_index() * V;
    if (index >= of.n) return;
    int e = (int)index, c = e % of.C, j = e / of.C % of.columns, row = e / of.C / of.columns;
    int i = row % of.rows, top = place(i, of.H, of.rows) / (2 * of.rows);
    int left = place(j, of.W, of.columns) / (2 * of.columns);
    x += (size_t)(row / of.rows) * of.H * of.W * of.C + c;
    float sum[V] = {};
#pragma unroll
    for (int h = top; h < top + 2; h++) {
        float a = weight_of(i, h, of.H, of.rows);
        if (a == 0) continue;  // below the last row too
#pragma unroll
        for (int w = left; w < left + 2; w++) {
            float each = a * weight_of(j, w, of.W, of.columns), v[V];
            if (each == 0) continue;
            load_pack(x + ((size_t)h * of.W + w) * of.C, v);
#pragma unroll
            for (int k = 0; k < V; k++) sum[k] += each * v[k];
        }
    }
    store_pack(y + e, sum);
}

template <int V>
__device__ __forceinline__ void resize_back(const Real* dy, Real* dx, const Resize& of) {
    long long index = thread_index() * V;
    if (index >= of.n) return;
    int H = of.H, W = of.W, rows = of.rows, columns = of.columns, C = of.C;
    int e = (int)index, c = e % C, w = e / C % W, row = e / C / W, h = row % H;
    Range is = readers(h, H, rows), js = readers(w, W, columns);
    dy += (size_t)(row / H) * rows * columns * C + c;
    float sum[V] = {};
    for (int i = is.first; i <= is.last; i++) {
        float a = weight_of(i, h, H, rows);
#pragma unroll 1
        for (int j = js.first; j <= js.last; j++) {
            float each = a * weight_of(j, w, W, columns), v[V];
            if (each == 0) continue;
            load_pack(dy + ((size_t)i * columns + j) * C, v);
#pragma unroll
            for (int k = 0; k < V; k++) sum[k] += each * v[k];
        }
    }
    store_pack(dx + e, sum);
}

extern "C" __global__ void __launch_bounds__(256) resize_bilinear(const Real* x, Real* y, PARAM Resize of) {
    if (of.C % N == 0)
        resize<N>(x, y, of);
    else
        resize<1>(x, y, of);
}
extern "C" __global__ void __launch_bounds__(256) resize_bilinear_backward(const Real* dy, Real* dx, PARAM Resize of) {
    if (of.C % N == 0)
        resize_back<N>(dy, dx, of);
    else
        resize_back<1>(dy, dx, of);
}
