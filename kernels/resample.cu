// Twice the size by repetition, half the size by averaging. With x small (rows, W, C), rows = N H, and y of twice its
// size:
//
//   upsample_nearest  y[2h+i, 2w+j] = x[h, w]                      backward: dx = the sum of the four dy
//   average_pool      x[h, w] = mean of the four y[2h+i, 2w+j]     backward: dy[2h+i, 2w+j] = dx / 4
//
// So there are two motions, one to four and four to one, each with a factor. A thread takes one place of the small
// image and PACK neighbours in C (16 bytes), or one channel where PACK does not divide C. Bytes: 5 sizeof(Real) for
// each element of the small image. Floor: bytes over the copy bandwidth.
#include <device.cuh>

constexpr int N = PACK<Real>;

// The element of the large image at the upper left of the four that belong to element i of the small one.
__device__ __forceinline__ size_t corner(int i, int W, int C) {
    int c = i % C, w = i / C % W, row = i / C / W;
    return ((size_t)row * 4 * W + 2 * w) * C + c;  // row 2 row of 2 W pixels
}

template <int V>
__device__ __forceinline__ void spread(const Real* small, Real* large, float factor, int W, int C, int n) {
    long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * V;
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
    long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * V;
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
