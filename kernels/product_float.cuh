// The sums of a tile by plain fused multiply-adds, float32 throughout. For product.cuh.
#pragma once
#include <tile.cuh>

// A thread's sums: I x J, of ACROSS threads along n and DOWN along m. Where the rows of a tile run along k, a thread's
// values of m (n) are DOWN (ACROSS) apart; where they run along m (n), they are fours of neighbours, 4 DOWN (4 ACROSS)
// apart. Either way a thread loads 16 bytes at a time and a warp's loads are free of conflicts.
template <bool A_ALONG_K, bool B_ALONG_K>
struct Sums {
    static constexpr int I = 8, J = TILE_N / 16, DOWN = TILE_M / I, ACROSS = 16;
    float d[I][J] = {};
    float column[J] = {};  // of B

    template <bool ALONG_K, int APART>
    static __device__ __forceinline__ int index(int thread, int i) {
        return ALONG_K ? thread + APART * i : 4 * (thread + APART * (i / 4)) + i % 4;
    }
    static __device__ __forceinline__ int down() {
        return threadIdx.x / ACROSS;
    }
    static __device__ __forceinline__ int across() {
        return threadIdx.x % ACROSS;
    }
    static __device__ __forceinline__ bool on_top() {
        return down() == 0;
    }

    // x[e][i] = the thread's i-th value of m or n at k + e.
    template <int APART, int COUNT, int OUTER, bool ALONG_K>
    static __device__ __forceinline__ void values(float (&x)[4][COUNT], Tile<OUTER, ALONG_K> tile, int thread, int k) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            float v[4];
            if (ALONG_K)
                load_pack(tile.pack(thread, k / 4) + APART * i * tile.ROW, v);
            else
                load_pack(tile.pack(k + i % 4, thread + APART * (i / 4)), v);
#pragma unroll
            for (int e = 0; e < 4; e++) (ALONG_K ? x[e][i] : x[i % 4][i / 4 * 4 + e]) = v[e];
        }
    }

    __device__ __forceinline__ void add(Tile<TILE_M, A_ALONG_K> a, Tile<TILE_N, B_ALONG_K> b, bool columns) {
#pragma unroll
        for (int k = 0; k < STEP; k += 4) {
            float of_a[4][I], of_b[4][J];
            values<DOWN>(of_a, a, down(), k);
            values<ACROSS>(of_b, b, across(), k);
#pragma unroll
            for (int e = 0; e < 4; e++) {
#pragma unroll
                for (int i = 0; i < I; i++)
#pragma unroll
                    for (int j = 0; j < J; j++) d[i][j] += of_a[e][i] * of_b[e][j];
                if (columns) {
#pragma unroll
                    for (int j = 0; j < J; j++) column[j] += of_b[e][j];
                }
            }
        }
    }

    __device__ __forceinline__ void store(float* tile) const {
#pragma unroll
        for (int i = 0; i < I; i++)
#pragma unroll
            for (int j = 0; j < J; j++)
                tile[finished(index<A_ALONG_K, DOWN>(down(), i), index<B_ALONG_K, ACROSS>(across(), j))] = d[i][j];
    }

    // write(n, sum over k of B[k, n]), by the threads on top.
    template <class Write>
    __device__ __forceinline__ void write_columns(Write write) const {
#pragma unroll
        for (int j = 0; j < J; j++)
            if (on_top()) write(index<B_ALONG_K, ACROSS>(across(), j), column[j]);
    }
};
