// The instructions that C++ has no words for, each behind one thin function: bfloat16, cp.async, ldmatrix, mma.
//
// Kernels include it as <ptx.cuh>. The emulator has a file of the same name with the same functions in plain C++, which
// is why nothing here is written anywhere else. All of it is there from sm_80 on.
#pragma once

// A bfloat16 is the upper half of a float32.
struct bf16 {
    unsigned short bits;
};

__device__ __forceinline__ float to_float(bf16 x) {
    return __uint_as_float((unsigned)x.bits << 16);
}

// Rounds to nearest, ties to even.
__device__ __forceinline__ bf16 to_bf16(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// Two bfloat16 in one word, `low` in the lower half: as two neighbours in memory.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
    unsigned y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

// 2^x to two units in the last place; 0 below 2^-126.
__device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The block's dynamic shared memory, 128-byte aligned.
__device__ __forceinline__ unsigned char* dynamic_shared() {
    extern __shared__ __align__(128) unsigned char dynamic_shared_bytes[];
    return dynamic_shared_bytes;
}

// 16 bytes from global to shared memory, both aligned to 16, past the registers; zeros, and no read, where !valid.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, bool valid = true) {
    unsigned address = (unsigned)__cvta_generic_to_shared(shared);
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(bytes) : "memory");
}

// Closes the group of this thread's copies since the last commit.
__device__ __forceinline__ void cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most N of this thread's groups are under way. Other threads' copies need a barrier after it.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Four 8x8 matrices of 16-bit values. Lane i gives the address of row i % 8 of matrix i / 8 (16 bytes, aligned) and
// gets, of each matrix, row lane / 4, columns 2 (lane % 4) and the next.
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* row) {
    unsigned address = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

// The same, each matrix transposed on its way.
__device__ __forceinline__ void ldmatrix_x4_transposed(unsigned (&r)[4], const void* row) {
    unsigned address = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

// d += a b on a tensor core, bfloat16 in, float32 sums: a 16x16 by rows, b 16x8 by columns, d 16x8. With g = lane / 4 and
// q = 2 (lane % 4), a lane holds
//   a: (g, q..q+1), (g+8, q..q+1), (g, q+8..q+9), (g+8, q+8..q+9)    b: (q..q+1, g), (q+8..q+9, g)
//   d: (g, q), (g, q+1), (g+8, q), (g+8, q+1)
__device__ __forceinline__ void mma_16816(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
