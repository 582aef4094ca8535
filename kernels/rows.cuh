// Arrays as rows of C channels, for kernels that normalise or sum: a thread holds V neighbouring channels of a row,
// 16 bytes with PACKED=1 (each row begins at a multiple of 16 bytes), else one.
#pragma once
#include <device.cuh>

#ifndef PACKED
#define PACKED 1
#endif
constexpr int V = PACKED ? PACK<Real> : 1;

// V values that are float32 whatever Real is.
__device__ __forceinline__ void load_floats(const float* p, float (&x)[V]) {
    if constexpr (V == 1) {
        x[0] = *p;
    } else {
#pragma unroll
        for (int j = 0; j < V; j += 4) {
            float4 v = *(const float4*)(p + j);
            x[j] = v.x, x[j + 1] = v.y, x[j + 2] = v.z, x[j + 3] = v.w;
        }
    }
}

// A block over whole rows, so that neighbouring threads read neighbouring bytes: L threads along a row, R rows at a time.
// Its L R threads, rounded up to warps, are the block; those left over have row >= R. A row longer than L V is taken in
// several turns.
constexpr int MAX_THREADS = 256;  // engines/cuda/rows.py reads this and TOTAL_CHANNELS
struct Tile {
    int L, R, column, row;
};
__device__ __forceinline__ Tile tile_of(int C) {
    int L = min(C / V, MAX_THREADS);
    return {L, MAX_THREADS / L, (int)threadIdx.x % L, (int)threadIdx.x / L};
}

// merge(a, b) over the R rows, as a tree in a fixed order; row 0 gets the result. scratch: K L ceil(R / 2) floats.
template <int K, class F>
__device__ __forceinline__ void merge_rows(float (&a)[K], const Tile& t, float* scratch, F merge) {
    int stride = (t.R + 1) / 2 * t.L;
    for (int left = t.R; left > 1;) {
        int half = (left + 1) / 2;
        if (t.row >= half && t.row < left) {
#pragma unroll
            for (int i = 0; i < K; i++) scratch[i * stride + (t.row - half) * t.L + t.column] = a[i];
        }
        __syncthreads();
        if (t.row + half < left) {
            float b[K];
#pragma unroll
            for (int i = 0; i < K; i++) b[i] = scratch[i * stride + t.row * t.L + t.column];
            merge(a, b);
        }
        __syncthreads();
        left = half;
    }
}
template <int K>
__device__ __forceinline__ void add_rows(float (&a)[K], const Tile& t, float* scratch) {
    merge_rows(a, t, scratch, [](float(&a)[K], const float(&b)[K]) {
#pragma unroll
        for (int i = 0; i < K; i++) a[i] += b[i];
    });
}

// first[c], second[c] = the sums over i of factor(i, c) times the parts of partial[i, c]; partial (count, C). A block takes
// TOTAL_CHANNELS channels, its threads the rows i in turn. scratch: two floats a thread.
constexpr int TOTAL_CHANNELS = 8;
template <class F>
__device__ __forceinline__ void add_partials(const float2* partial, int count, int C, int block, F factor, float* first,
                                             float* second, float2* scratch) {
    int c = block * TOTAL_CHANNELS + (int)threadIdx.x % TOTAL_CHANNELS, rows = blockDim.x / TOTAL_CHANNELS;
    float a = 0, b = 0;
    if (c < C) {
#pragma unroll 4
        for (int i = threadIdx.x / TOTAL_CHANNELS; i < count; i += rows) {
            float2 v = partial[(size_t)i * C + c];
            float f = factor(i, c);
            a += f * v.x, b += f * v.y;
        }
    }
    scratch[threadIdx.x] = make_float2(a, b);
    __syncthreads();
    if (threadIdx.x < TOTAL_CHANNELS && c < C) {
        for (int i = 1; i < rows; i++) {
            float2 v = scratch[i * TOTAL_CHANNELS + threadIdx.x];
            a += v.x, b += v.y;
        }
        first[c] = a, second[c] = b;
    }
}
