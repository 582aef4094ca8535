// What the kernels share: the type of the data, loads and stores of one and of 16 bytes of values, sums over a warp and
// a block. A file is compiled once a type: BF16 undefined, Real is float; defined, bfloat16. Sums are always float32.
#pragma once
#include <ptx.cuh>

#ifdef BF16
typedef bf16 Real;
#else
typedef float Real;
#endif

// A struct that a kernel is given by value, read from where the launch puts it when a field is needed, and not as a
// whole into registers at the beginning, where layer_norm_backward would spill.
#define PARAM const __grid_constant__

// Rows of an array that lie `pitch` elements apart, as the parts of a split do.
template <class T>
struct Pitched {
    T* data;
    int pitch;
};

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;  // every lane of a warp

// Of a thread in a grid of one dimension.
__device__ __forceinline__ long long thread_index() {
    return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ float to_float(float x) {
    return x;
}

__device__ __forceinline__ float load(const float* p) {
    return *p;
}
__device__ __forceinline__ float load(const bf16* p) {
    return to_float(*p);
}
__device__ __forceinline__ void store(float* p, float x) {
    *p = x;
}
__device__ __forceinline__ void store(bf16* p, float x) {
    *p = to_bf16(x);
}

// 16 bytes of values: 4 float32 or 8 bfloat16.
template <class T>
constexpr int PACK = 16 / sizeof(T);

__device__ __forceinline__ void load_pack(const float* p, float (&x)[4]) {
    float4 v = *(const float4*)p;
    x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
}
__device__ __forceinline__ void load_pack(const bf16* p, float (&x)[8]) {
    uint4 v = *(const uint4*)p;
    unsigned w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = __uint_as_float(w[i] << 16);
        x[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
    }
}
__device__ __forceinline__ void store_pack(float* p, const float (&x)[4]) {
    *(float4*)p = make_float4(x[0], x[1], x[2], x[3]);
}
__device__ __forceinline__ void store_pack(bf16* p, const float (&x)[8]) {
    *(uint4*)p = make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
}

// The same of one value, for where packs do not fit.
template <class T>
__device__ __forceinline__ void load_pack(const T* p, float (&x)[1]) {
    x[0] = load(p);
}
template <class T>
__device__ __forceinline__ void store_pack(T* p, const float (&x)[1]) {
    store(p, x[0]);
}

// The sum over a warp, in every lane, always in the same order.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int mask = WARP / 2; mask; mask /= 2) x += __shfl_xor_sync(ALL, x, mask);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int mask = WARP / 2; mask; mask /= 2) x = fmaxf(x, __shfl_xor_sync(ALL, x, mask));
    return x;
}

// The sum over a block of whole warps, in every thread. `scratch` is shared memory for a float a warp; it may be used
// again after the next barrier only.
__device__ __forceinline__ float block_sum(float x, float* scratch) {
    int warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) scratch[warp] = x;
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < warps; i++) sum += scratch[i];
    return sum;
}

// 1 / (1 + exp(-x)), 0 and 1 at the ends without an overflow.
__device__ __forceinline__ float logistic(float x) {
    return __fdividef(1, 1 + __expf(-x));
}
