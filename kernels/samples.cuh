// What kernels over samples share. Samples lie one after another, `count` elements each: a thread takes neighbours of one
// sample, or the blocks of a sample take its elements in turn. And arrays of either type in one kernel, told apart when it
// runs: data are float32 where a network says bfloat16.
#pragma once
#include <device.cuh>

// The first of the elements of this thread, n or more where it has none; width: how many, PACK (16 bytes) or 1.
struct Elements {
    int first, width, sample;
};
__device__ __forceinline__ Elements elements_of(int count) {
    int width = count % PACK<Real> ? 1 : PACK<Real>;
    long long i = thread_index() * width;
    return {(int)i, width, (int)i / count};
}

// Of a block among the `parts` of a sample: its sample, and which of its elements this thread takes.
struct Share {
    int sample, first, stride;
};
__device__ __forceinline__ Share share_of(int parts) {
    return {(int)blockIdx.x / parts, (int)(blockIdx.x % parts * blockDim.x + threadIdx.x), (int)(parts * blockDim.x)};
}

// The block's sum to its place in (samples, parts). scratch: a float a warp.
__device__ __forceinline__ void put_sum(float sum, float* out, float* scratch) {
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// An array in `wide` or in `narrow`, the other is null; both: zeros. shared: one number a sample, (samples,).
struct Values {
    const float* wide;
    const bf16* narrow;
    int shared;
};
__device__ __forceinline__ float value_at(const Values& x, int sample, int e, int count) {
    size_t i = x.shared ? sample : (size_t)sample * count + e;
    return x.wide ? x.wide[i] : x.narrow ? to_float(x.narrow[i]) : 0;
}

// An array to be written; both null: not asked for.
struct Results {
    float* wide;
    bf16* narrow;
};
__device__ __forceinline__ void put(const Results& y, size_t i, float x) {
    if (y.wide)
        y.wide[i] = x;
    else if (y.narrow)
        y.narrow[i] = to_bf16(x);
}
