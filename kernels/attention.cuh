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

// Where this block works: a tile of a head of a sample, tiles fastest, so that neighbours read the same head.
struct Place {
    int tile, head, sample;
    __device__ __forceinline__ Place(int block, int tiles, int heads)
        : tile(block % tiles), head(block / tiles % heads), sample(block / tiles / heads) {}
    // The first element of this head in an array (N, length, heads d).
    template <class T>
    __device__ __forceinline__ T* of(T* x, int length, int pitch, int d) const {
        return x + (size_t)sample * length * pitch + head * d;
    }
    // The first of this head's values in an array (N, heads, length).
    template <class T>
    __device__ __forceinline__ T* row(T* x, int heads, int length) const {
        return x + (size_t)(sample * heads + head) * length;
    }
};

__device__ __forceinline__ int tiles_of(int length, int each) {
    return (length + each - 1) / each;
}
