// The sums of a tile on tensor cores, bfloat16: ldmatrix and mma.sync m16n8k16. For product.cuh.
#pragma once
#include <tile.cuh>

// A warp's sums: HEIGHT x 32, as I x J tiles of 16x8, of which lane 4 g + q / 2 holds rows g and g + 8, columns q and
// q + 1 (see mma_16816).
template <bool A_ALONG_K, bool B_ALONG_K>
struct Sums {
    static constexpr int ACROSS = TILE_N / 32, HEIGHT = TILE_M * ACROSS / (THREADS / WARP), I = HEIGHT / 16, J = 4;
    float d[I][J][4] = {};
    float column[J] = {};  // of B: the lane's part of column g of each of the J tiles

    static __device__ __forceinline__ int first_row() {
        return threadIdx.x / WARP / ACROSS * HEIGHT;
    }
    static __device__ __forceinline__ int first_column() {
        return threadIdx.x / WARP % ACROSS * 32;
    }
    static __device__ __forceinline__ bool on_top() {
        return first_row() == 0;
    }

    // The i-th 16 of m or n from `first` on by the j-th 16 of k, as four 8x8 matrices. With FIRST_K the second is the
    // next in k: so mma wants B, two registers for 8 of n, then two for the next 8. Else it is the next in m: so mma
    // wants A. Rows that are 16 apart are permuted alike, so one address serves for all i, or for all j.
    template <bool FIRST_K, int OUTER, bool ALONG_K>
    static __device__ __forceinline__ void fragment(
        unsigned (&r)[4], Tile<OUTER, ALONG_K> tile, int first, int i, int j
    ) {
        int lane = threadIdx.x % WARP, row = lane % 8;  // the lane gives this row of matrix lane / 8
        int k = FIRST_K ? lane / 8 % 2 : lane / 16, outer = FIRST_K ? lane / 16 : lane / 8 % 2;
        if (ALONG_K)
            ldmatrix_x4(r, tile.pack(first + 8 * outer + row, 2 * j + k) + 16 * i * tile.ROW);
        else
            ldmatrix_x4_transposed(r, tile.pack(8 * k + row, first / 8 + 2 * i + outer) + 16 * j * tile.ROW);
    }

    __device__ __forceinline__ void add(Tile<TILE_M, A_ALONG_K> a, Tile<TILE_N, B_ALONG_K> b, bool columns) {
#pragma unroll
        for (int k = 0; k < STEP / 16; k++) {
            unsigned of_a[I][4], of_b[J][2];
#pragma unroll
            for (int i = 0; i < I; i++) fragment<false>(of_a[i], a, first_row(), i, k);
#pragma unroll
            for (int j = 0; j < J; j += 2) {
                unsigned r[4];
                fragment<true>(r, b, first_column(), j / 2, k);
                of_b[j][0] = r[0], of_b[j][1] = r[1], of_b[j + 1][0] = r[2], of_b[j + 1][1] = r[3];
            }
#pragma unroll
            for (int i = 0; i < I; i++)
#pragma unroll
                for (int j = 0; j < J; j++) mma_16816(d[i][j], of_a[i], of_b[j]);
            if (columns) {
#pragma unroll
                for (int j = 0; j < J; j++)
#pragma unroll
                    for (int h = 0; h < 2; h++)
                        column[j] += __uint_as_float(of_b[j][h] << 16) + __uint_as_float(of_b[j][h] & 0xffff0000u);
            }
        }
    }

    __device__ __forceinline__ void store(float* tile) const {
        int m = first_row() + threadIdx.x % WARP / 4, n = first_column() + threadIdx.x % 4 * 2;
#pragma unroll
        for (int i = 0; i < I; i++)
#pragma unroll
            for (int j = 0; j < J; j++)
#pragma unroll
                for (int h = 0; h < 2; h++)
                    *(float2*)(tile + finished(m + 16 * i + 8 * h, n + 8 * j)) =
                        make_float2(d[i][j][2 * h], d[i][j][2 * h + 1]);
    }

    // write(n, sum over k of B[k, n]), by the warps on top.
    template <class Write>
    __device__ __forceinline__ void write_columns(Write write) const {
#pragma unroll
        for (int j = 0; j < J; j++) {
            float x = column[j];
            x += __shfl_xor_sync(ALL, x, 1);
            x += __shfl_xor_sync(ALL, x, 2);
            if (on_top() && threadIdx.x % 4 == 0) write(first_column() + 8 * j + threadIdx.x % WARP / 4, x);
        }
    }
};
