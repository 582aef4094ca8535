// Counter-based noise, the same numbers as refdiff/random.py: Philox 4x32-10 [Philox], Box and Muller [BoxMuller].
//
//   counter = (block of four elements, first + sample id, step, stream),   key = (seed low, seed high)
#pragma once
#include <device.cuh>

// As refdiff.random.Sequence. What changes between launches of one captured graph lies in device memory: a step (first)
// at step_at (first_at), if that is not null.
struct Sequence {
    unsigned low, high, stream, step, first;  // low, high: halves of the seed
    const int *step_at, *first_at;
};

// A Sequence when its numbers are drawn.
struct Key {
    unsigned low, high, stream, step, first;
};

__device__ __forceinline__ Key key_of(const Sequence& of) {
    return {of.low, of.high, of.stream, of.step_at ? (unsigned)*of.step_at : of.step,
            of.first_at ? (unsigned)*of.first_at : of.first};
}

// Four random words: ten rounds [Philox] section 3.3.
__device__ __forceinline__ uint4 philox(Key key, unsigned block, unsigned sample_id) {
    unsigned c0 = block, c1 = key.first + sample_id, c2 = key.step, c3 = key.stream, k0 = key.low, k1 = key.high;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        unsigned high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        unsigned high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0, c1 = low1, c2 = high0 ^ c3 ^ k1, c3 = low0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return make_uint4(c0, c1, c2, c3);
}

// Uniform on (0, 1), exactly.
__device__ __forceinline__ double unit(unsigned word) {
    return (word + 0.5) * 0x1p-32;
}

// Two standard normal numbers of two words: sqrt(-2 log u) (cos, sin)(2 pi v), in double, cast once.
__device__ __forceinline__ float2 box_muller(unsigned u, unsigned v) {
    double radius = sqrt(-2 * log(unit(u))), sine, cosine;
    sincospi(2 * unit(v), &sine, &cosine);
    return make_float2((float)(radius * cosine), (float)(radius * sine));
}

// Elements 4 block .. 4 block + 3 of a sample.
__device__ __forceinline__ void normal4(Key key, unsigned block, unsigned sample_id, float (&z)[4]) {
    uint4 w = philox(key, block, sample_id);
    float2 first = box_muller(w.x, w.y), second = box_muller(w.z, w.w);
    z[0] = first.x, z[1] = first.y, z[2] = second.x, z[3] = second.y;
}

// Uniform on 0 .. range - 1: the high half of a product of 64 bits.   range to 2^32
__device__ __forceinline__ unsigned below(unsigned word, unsigned long long range) {
    return (unsigned)((word * range) >> 32);
}

// What a thread takes where elements are drawn: the four of one counter, e .. e + 3 of a sample; the last may have
// fewer.
struct Place {
    bool inside;
    int sample, e, count;
    bool vector;  // all four, at an address aligned to four elements
};
__device__ __forceinline__ Place place_of(int samples, int elements) {
    int fours = (elements + 3) / 4;
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    int e = (int)i % fours * 4;
    return {i < (long long)samples * fours, (int)i / fours, e, elements - e, elements % 4 == 0};
}

__device__ __forceinline__ void load4(const float* p, float (&x)[4]) {
    load_pack(p, x);
}
__device__ __forceinline__ void load4(const bf16* p, float (&x)[4]) {
    uint2 v = *(const uint2*)p;
    x[0] = __uint_as_float(v.x << 16), x[1] = __uint_as_float(v.x & 0xffff0000u);
    x[2] = __uint_as_float(v.y << 16), x[3] = __uint_as_float(v.y & 0xffff0000u);
}
__device__ __forceinline__ void store4(float* p, const float (&x)[4]) {
    store_pack(p, x);
}
__device__ __forceinline__ void store4(bf16* p, const float (&x)[4]) {
    *(uint2*)p = make_uint2(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]));
}

template <class T>
__device__ __forceinline__ void get4(const T* p, float (&x)[4], const Place& at) {
    if (at.vector) {
        load4(p, x);
    } else {
#pragma unroll
        for (int j = 0; j < 4; j++) x[j] = j < at.count ? load(p + j) : 0;
    }
}
template <class T>
__device__ __forceinline__ void put4(T* p, const float (&x)[4], const Place& at) {
    if (at.vector) {
        store4(p, x);
    } else {
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (j < at.count) store(p + j, x[j]);
    }
}
