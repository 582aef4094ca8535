// The parts of attention.cu's kernels: tiles of bfloat16 in shared memory, how they arrive there, and products of them.
#pragma once
#include <attention.cuh>

#ifndef HEAD
#define HEAD 64
#endif

// How the kernels for y, dq, dk and dv cut their work, by the largest HEAD. engines/cuda/attention_ops.py reads the table.
struct Cut {
    int warps;   // of a block
    int bands;   // of 16 rows, in a warp
    int tile;    // rows that stream past at a time
    int stages;  // tiles of them in memory
};
struct Cuts {
    int head, split;  // split: warps that share the columns of a row
    Cut forward, queries, keys;
};
constexpr Cuts CUTS[] = {
    {64, 1, {2, 2, 32, 2}, {2, 2, 32, 2}, {2, 2, 16, 2}},
    {128, 1, {2, 2, 32, 2}, {2, 2, 16, 2}, {4, 1, 32, 2}},
    {256, 2, {4, 2, 16, 2}, {4, 2, 16, 1}, {4, 1, 16, 2}},
    {512, 4, {4, 2, 16, 1}, {4, 1, 16, 1}, {4, 1, 16, 1}},
};
constexpr Cuts CUT = CUTS[HEAD <= 64 ? 0 : HEAD <= 128 ? 1 : HEAD <= 256 ? 2 : 3];
static_assert(HEAD <= CUT.head, "HEAD");

template <int WARPS_, int BANDS_, int TILE_, int STAGES_>
struct Shape {
    static constexpr int WARPS = WARPS_, BANDS = BANDS_, TILE = TILE_, STAGES = STAGES_, THREADS = WARPS * WARP;
    static constexpr int ROWS = 16 * BANDS * WARPS / CUT.split;                  // that stay, in a block
    static constexpr int SHARE = CUT.split > 1 ? 16 * BANDS * WARPS * TILE : 0;  // floats to add one set of scores
};
typedef Shape<CUT.forward.warps, CUT.forward.bands, CUT.forward.tile, CUT.forward.stages> Forward;
typedef Shape<CUT.queries.warps, CUT.queries.bands, CUT.queries.tile, CUT.queries.stages> Queries;
typedef Shape<CUT.keys.warps, CUT.keys.bands, CUT.keys.tile, CUT.keys.stages> Keys;
constexpr int SPLIT = CUT.split;
constexpr int SLICE = HEAD / SPLIT;
constexpr int PITCH = HEAD + 8;
constexpr float LN2 = 0.6931471806f;
static_assert(HEAD % (16 * SPLIT) == 0, "HEAD");

// Rows first ... first + ROWS - 1 of x (length rows of d) into a tile, zeros outside. vector: all is aligned to 16
// bytes. On return the copies may still be under way.
template <int ROWS, int THREADS>
__device__ __forceinline__ void fetch(bf16* tile, const bf16* x, int pitch, int first, int length, int d, bool vector) {
    constexpr int PACKS = HEAD / 8;
    for (int i = threadIdx.x; i < ROWS * PACKS; i += THREADS) {
        int row = i / PACKS, column = i % PACKS * 8;
        bool inside = first + row < length;
        bf16* to = tile + row * PITCH + column;
        const bf16* from = x + (size_t)(first + row) * pitch + column;
        if (vector) {
            inside = inside && column < d;
            cp_async_16(to, inside ? from : x, inside);
        } else {
            for (int j = 0; j < 8; j++) to[j] = inside && column + j < d ? from[j] : bf16{0};
        }
    }
}

// Two arrays of the same length that stream past together, tile by tile, and two statistics of their rows where there
// are any. A stage holds a's tile, b's tile, TILE of lse, TILE of delta.
template <class K>
struct Stream {
    static constexpr int SIZE = 2 * K::TILE * PITCH + 4 * K::TILE;  // of a stage, in bf16
    bf16* stages;
    const bf16 *a, *b;
    int a_pitch, b_pitch, length, d;
    bool vector;
    const float *lse, *delta;

    __device__ __forceinline__ bf16* tile_a(int i) const { return stages + i % K::STAGES * SIZE; }
    __device__ __forceinline__ bf16* tile_b(int i) const { return tile_a(i) + K::TILE * PITCH; }
    __device__ __forceinline__ float* statistics(int i) const { return (float*)(tile_a(i) + 2 * K::TILE * PITCH); }
    __device__ __forceinline__ float* end() const { return (float*)(stages + K::STAGES * SIZE); }
    __device__ __forceinline__ int count() const { return tiles_of(length, K::TILE); }
    __device__ __forceinline__ void fetch_tile(int i) const {
        if (i < count()) {
            fetch<K::TILE, K::THREADS>(tile_a(i), a, a_pitch, i * K::TILE, length, d, vector);
            fetch<K::TILE, K::THREADS>(tile_b(i), b, b_pitch, i * K::TILE, length, d, vector);
            int at = threadIdx.x * 4;
            if (lse && at < 2 * K::TILE)
                cp_async_16(statistics(i) + at, (at < K::TILE ? lse + at : delta + at - K::TILE) + i * K::TILE);
        }
        cp_async_commit();
    }
    // Before tile i is used: it is there, and no thread is at tile i - 1 any more, whose place the next one may take.
    __device__ __forceinline__ void wait(int i) const {
        cp_async_wait<0>();
        __syncthreads();
        if (K::STAGES == 2) fetch_tile(i + 1);
    }
    __device__ __forceinline__ void release(int i) const {
        if (K::STAGES == 1) {
            __syncthreads();
            fetch_tile(i + 1);
        }
    }
};

// What lane i gives to ldmatrix for a 16x16 block: the four 8x8 matrices down the first columns, then the second; or
// across the first rows, then the second.
__device__ __forceinline__ const bf16* down(const bf16* block) {
    int lane = threadIdx.x % WARP;
    return block + lane % 16 * PITCH + lane / 16 * 8;
}
__device__ __forceinline__ const bf16* across(const bf16* block) {
    int lane = threadIdx.x % WARP;
    return block + (lane / 16 * 8 + lane % 8) * PITCH + lane / 8 % 2 * 8;
}

// d += a b for the two 16x8 halves of a 16x16 block b.
__device__ __forceinline__ void mma_16(float (&d0)[4], float (&d1)[4], const unsigned (&a)[4], const unsigned (&b)[4]) {
    unsigned b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
    mma_16816(d0, a, b0);
    mma_16816(d1, a, b1);
}

// z = a b^T over a slice of columns: BANDS times 16 rows of a, TILE rows of b.
template <int BANDS, int TILE>
__device__ __forceinline__ void scores(float (&z)[BANDS][TILE / 8][4], const bf16* a, const bf16* b) {
#pragma unroll
    for (int band = 0; band < BANDS; band++)
#pragma unroll
        for (int j = 0; j < TILE / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) z[band][j][e] = 0;
#pragma unroll
    for (int c = 0; c < SLICE; c += 16) {
        unsigned rows[BANDS][4], columns[4];
#pragma unroll
        for (int band = 0; band < BANDS; band++) ldmatrix_x4(rows[band], down(a + band * 16 * PITCH + c));
#pragma unroll
        for (int j = 0; j < TILE / 8; j += 2) {
            ldmatrix_x4(columns, across(b + j * 8 * PITCH + c));
#pragma unroll
            for (int band = 0; band < BANDS; band++) mma_16(z[band][j], z[band][j + 1], rows[band], columns);
        }
    }
}

// o += p b over a slice of columns: p BANDS times 16 x TILE in registers, b TILE rows.
template <int BANDS, int TILE>
__device__ __forceinline__ void accumulate(float (&o)[BANDS][SLICE / 8][4], const float (&p)[BANDS][TILE / 8][4],
                                           const bf16* b) {
#pragma unroll
    for (int j = 0; j < TILE / 8; j += 2) {
        unsigned rows[BANDS][4];
#pragma unroll
        for (int band = 0; band < BANDS; band++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                rows[band][i] = pack_bf16(p[band][j + i / 2][i % 2 * 2], p[band][j + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int c = 0; c < SLICE; c += 16) {
            unsigned columns[4];
            ldmatrix_x4_transposed(columns, down(b + j * 8 * PITCH + c));
#pragma unroll
            for (int band = 0; band < BANDS; band++) mma_16(o[band][c / 8], o[band][c / 8 + 1], rows[band], columns);
        }
    }
}

// The scores of the SPLIT warps of the same rows, added: share_scores, a barrier, add_scores. All add in the same order
// and so agree.
template <int BANDS, int TILE>
__device__ __forceinline__ void share_scores(float* share, const float (&z)[BANDS][TILE / 8][4]) {
    float4* scores = (float4*)share + threadIdx.x / WARP * (BANDS * TILE / 8) * WARP + threadIdx.x % WARP;
#pragma unroll
    for (int band = 0; band < BANDS; band++)
#pragma unroll
        for (int j = 0; j < TILE / 8; j++) {
            const float(&v)[4] = z[band][j];
            scores[(band * (TILE / 8) + j) * WARP] = make_float4(v[0], v[1], v[2], v[3]);
        }
}
template <int BANDS, int TILE>
__device__ __forceinline__ void add_scores(const float* share, float (&z)[BANDS][TILE / 8][4]) {
    constexpr int EACH = BANDS * TILE / 8 * WARP;
    const float4* first = (const float4*)share + threadIdx.x / WARP / SPLIT * SPLIT * EACH + threadIdx.x % WARP;
#pragma unroll
    for (int band = 0; band < BANDS; band++)
#pragma unroll
        for (int j = 0; j < TILE / 8; j++) {
            float4 sum = first[(band * (TILE / 8) + j) * WARP];
#pragma unroll
            for (int s = 1; s < SPLIT; s++) {
                float4 v = first[s * EACH + (band * (TILE / 8) + j) * WARP];
                sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
            }
            z[band][j][0] = sum.x, z[band][j][1] = sum.y, z[band][j][2] = sum.z, z[band][j][3] = sum.w;
        }
}

// Scores of the columns from `count` on become `value`.
template <int BANDS, int TILE>
__device__ __forceinline__ void mask(float (&z)[BANDS][TILE / 8][4], int count, float value) {
#pragma unroll
    for (int band = 0; band < BANDS; band++)
#pragma unroll
        for (int j = 0; j < TILE / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (8 * j + (int)threadIdx.x % 4 * 2 + e % 2 >= count) z[band][j][e] = value;
}

template <int BANDS>
__device__ __forceinline__ void clear(float (&o)[BANDS][SLICE / 8][4]) {
#pragma unroll
    for (int band = 0; band < BANDS; band++)
#pragma unroll
        for (int c = 0; c < SLICE / 8; c++)
#pragma unroll
            for (int e = 0; e < 4; e++) o[band][c][e] = 0;
}

// A band's 16 x SLICE sums times a factor a row (lane / 4 and lane / 4 + 8) into x, rows first ... of length, columns
// first_column ... of d. They go by way of `buffer`, the place of the same rows and columns in a tile that no other
// warp reads, and from there in whole 16 bytes.
__device__ __forceinline__ void put(const float (&o)[SLICE / 8][4], float factor0, float factor1, bf16* buffer, bf16* x,
                                    int pitch, int first, int length, int first_column, int d, bool vector) {
    int lane = threadIdx.x % WARP;
    __syncwarp();
#pragma unroll
    for (int c = 0; c < SLICE / 8; c++) {
        bf16* at = buffer + lane / 4 * PITCH + 8 * c + lane % 4 * 2;
        *(unsigned*)at = pack_bf16(o[c][0] * factor0, o[c][1] * factor0);
        *(unsigned*)(at + 8 * PITCH) = pack_bf16(o[c][2] * factor1, o[c][3] * factor1);
    }
    __syncwarp();
    for (int i = lane; i < 16 * SLICE / 8; i += WARP) {
        int row = i / (SLICE / 8), c = i % (SLICE / 8) * 8, column = first_column + c;
        if (first + row >= length) continue;
        bf16* to = x + (size_t)(first + row) * pitch + column;
        const bf16* from = buffer + row * PITCH + c;
        if (vector) {
            if (column < d) *(uint4*)to = *(const uint4*)from;
        } else {
            for (int j = 0; j < 8 && column + j < d; j++) to[j] = from[j];
        }
    }
}

// This lane's part of the product of two rows: a lane of four takes every fourth pack.
__device__ __forceinline__ float dot(const bf16* a, const bf16* b, int d, bool vector) {
    int lane = threadIdx.x % 4;
    float sum = 0;
    if (vector) {
        for (int c = lane * 8; c < d; c += 32) {
            float s[8], t[8];
            load_pack(a + c, s);
            load_pack(b + c, t);
#pragma unroll
            for (int j = 0; j < 8; j++) sum += s[j] * t[j];
        }
    } else {
        for (int c = lane; c < d; c += 4) sum += load(a + c) * load(b + c);
    }
    return sum;
}

// Over the four lanes of the same rows.
__device__ __forceinline__ float sum_of_four(float x) {
    x += __shfl_xor_sync(ALL, x, 1);
    return x + __shfl_xor_sync(ALL, x, 2);
}
