// The tile of a matrix product in shared memory: its size, and where each of its values stands. For product.cuh.
#pragma once
#include <device.cuh>

#ifndef TILE_M
#define TILE_M 128
#endif
#ifndef TILE_N
#define TILE_N 128
#endif
#ifndef STAGES
#define STAGES 4
#endif
// Whether rows of the operation's input (output) channels can be taken pack by pack: their number, and their pitch
// where they have one, are multiples of a pack.
#ifndef IN_PACKS
#define IN_PACKS 1
#endif
#ifndef OUT_PACKS
#define OUT_PACKS 1
#endif

constexpr int P = PACK<Real>;
constexpr int STEP_BYTES = 64;  // of k; engines/cuda/product.py reads it
constexpr int STEP = STEP_BYTES / sizeof(Real);  // 16 float32 or 32 bfloat16
constexpr int THREADS = 2 * TILE_M;
constexpr int RESIDENT = IN_PACKS && OUT_PACKS ? 2 : 1;  // blocks at once on a multiprocessor that registers must allow

// OUTER values of m or n by STEP of k, in rows along whichever is contiguous in memory. The packs of a row are permuted
// so that one column of packs in 8 neighbouring rows lies in 8 different groups of four banks, as do 8 packs of a row:
// no copy, ldmatrix or 16-byte load meets a conflict. Rows 8 apart are permuted alike.
template <int OUTER, bool ALONG_K>
struct Tile {
    static constexpr int ROWS = ALONG_K ? OUTER : STEP, PACKS = (ALONG_K ? STEP : OUTER) / P, ROW = PACKS * P;
    Real* data;

    static __device__ __forceinline__ int index(int row, int i) {
        int swizzle = PACKS >= 8 ? row % 8 : row / (8 / PACKS) % PACKS;
        return row * ROW + (i ^ swizzle) * P;
    }
    __device__ __forceinline__ Real* pack(int row, int i) const {
        return data + index(row, i);
    }
};

// Where sum (m, n) of the finished tile stands, as float32: rows 4 apart share their banks, those between do not.
__device__ __forceinline__ int finished(int m, int n) {
    return m * TILE_N + (n ^ (m % 4 * 8));
}
