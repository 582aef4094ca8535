// What both forms of attention (attention.cu in bfloat16, attention_float.cu in float32) share.
//
// A block takes a tile of rows of one head of one sample and streams past it the tiles of the other sequence:
//
//                  rows that stay    tiles that stream past    what it writes
//   forward        q                 k, v                      y, lse
//   dq             q, dy             k, v                      dq, delta
//   dk, dv         k, v              q, dy                     dk, dv
//
// Every array is (N, length, heads d) with its own pitch, the elements from one row to the next: the parts of one
// projection (N, S, 3 C) are read and written where they are, a head is a range of columns.
#pragma once
#include <device.cuh>

// What the three kernels are given, each what it needs. q, y, dy, dq are (N, S, heads d), k, v, dk, dv (N, L, heads d),
// lse and delta (N, heads, stride), where all rows of a block's tile are written.
struct Attention {
    Pitched<const Real> q, k, v, dy;
    Pitched<Real> y, dq, dk, dv;
    float *lse, *delta;
    int S, L, heads, d;
    int stride;   // S rounded up to a multiple of 64
    float scale;  // 1 / sqrt(d); times log2(e) in bfloat16
    int vector;   // bfloat16: d, all pitches and addresses are multiples of 8 elements
};

constexpr float LOWEST = -3e38f;  // instead of -inf, for which m - m is NaN

// Where this block works: a tile of a head of a sample, tiles fastest, so that neighbours read the same head.
struct Place {
    int tile, head, sample;
    __device__ __forceinline__ Place(int block, int tiles, int heads)
        : tile(block % tiles), head(block / tiles % heads), sample(block / tiles / heads) {}
    // The first element of this head in an array (N, length, heads d).
    template <class T>
    __device__ __forceinline__ T* of(Pitched<T> x, int length, int d) const {
        return x.data + (size_t)sample * length * x.pitch + head * d;
    }
    // The first of this head's values in lse or delta.
    __device__ __forceinline__ float* row(float* x, const Attention& given) const {
        return x + (size_t)(sample * given.heads + head) * given.stride;
    }
};

__device__ __forceinline__ int tiles_of(int length, int each) {
    return (length + each - 1) / each;
}
