// Matrix products by tiles: the core of linear.cu and conv2d.cu, forwards and backwards.
//
//   C[m, n] = sum_k A[m, k] B[k, n],    m < M, n < N, k < K
//
// A block owns TILE_M x TILE_N sums, which its threads hold in registers, and walks along k in steps of STEP. Each step
// needs a tile of A (TILE_M x STEP) and a tile of B (STEP x TILE_N) in shared memory; a ring of STAGES such pairs is kept
// full by cp.async, so that STAGES - 1 steps are on their way from memory while one is multiplied. At the end the sums go
// through shared memory once, to be written in whole rows.
//
// A and B need not be matrices in memory: what they are is said by a *loader*, a struct with
//
//   ALONG_K            whether neighbours in memory are neighbours in k, or else in m (of A), in n (of B)
//   Place outer(int)   what an address owes to m (of A) or to n (of B); worked out once
//   Place k(int)       what it owes to k
//   at(Place, Place, int& index)   where from `data` on one value stands; false for a zero that stands nowhere (padding,
//                      past an end)
//
// bfloat16 is multiplied by tensor cores (ldmatrix, mma.sync), float32 by plain FMA; both keep float32 sums. What moves the
// tiles is the same code: it knows packs of 16 bytes only.
//
// Operations 2 M N K. Bytes from memory, at best: A, B and C once. From the second-level cache: each tile of A is read
// N / TILE_N times, each of B M / TILE_M times, so a step of 128x128x32 does 1 MFLOP for 16 KB. Floor: operations over the
// matrix rate; the bytes where K is small.
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
// Whether rows of the operation's input (output) channels can be taken pack by pack: their number, and their pitch where
// they have one, are multiples of a pack.
#ifndef IN_PACKS
#define IN_PACKS 1
#endif
#ifndef OUT_PACKS
#define OUT_PACKS 1
#endif

constexpr int P = PACK<Real>;
constexpr int STEP = 4 * P;            // 16 float32 or 32 bfloat16: 64 bytes
constexpr int THREADS = 2 * TILE_M;
constexpr int RESIDENT = IN_PACKS && OUT_PACKS ? 2 : 1;  // blocks of a multiprocessor at once, which registers must allow

// A tile in shared memory: OUTER values of m or n by STEP of k, in rows along whichever is contiguous. The packs of a row
// are permuted so that one column of packs in 8 neighbouring rows lies in 8 different groups of four banks, as does a row:
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

// What a thread copies of each tile: pack `column` of COPIES rows, APART from each other. PACKED: a pack's values are
// neighbours in memory, aligned, and all or none of them exist; else they are fetched one by one.
template <int OUTER, bool PACKED, class Loader>
struct Source {
    static constexpr bool ALONG_K = Loader::ALONG_K;
    typedef Tile<OUTER, ALONG_K> To;
    static constexpr int APART = THREADS / To::PACKS, COPIES = To::ROWS / APART;
    static_assert(APART % 8 == 0 && COPIES > 0, "rows of a thread are permuted alike");
    const Loader& loader;
    int first, row, column, to;                      // first: m or n of the tile's corner
    typename Loader::Place outer[ALONG_K ? COPIES : 1];

    __device__ __forceinline__ Source(const Loader& loader, int first)
        : loader(loader), first(first), row(threadIdx.x / To::PACKS), column(threadIdx.x % To::PACKS),
          to(To::index(row, column)) {
#pragma unroll
        for (int c = 0; c < (ALONG_K ? COPIES : 1); c++)
            outer[c] = loader.outer(first + (ALONG_K ? row + c * APART : column * P));
    }

    __device__ __forceinline__ void copy(Real* tile, int k) const {
        Real* here = tile + to;
#pragma unroll
        for (int c = 0; c < COPIES; c++, here += APART * To::ROW) {
            int index;
            if (PACKED) {
                auto place = loader.k(k + (ALONG_K ? column * P : row + c * APART));
                bool exists = loader.at(outer[ALONG_K ? c : 0], place, index);
                cp_async_16(here, loader.data + index, exists);
            } else {
#pragma unroll 4
                for (int i = 0; i < P; i++) {
                    bool exists =
                        ALONG_K ? loader.at(outer[c], loader.k(k + column * P + i), index)
                                : loader.at(loader.outer(first + column * P + i), loader.k(k + row + c * APART), index);
                    here[i] = exists ? loader.data[index] : Real{};
                }
            }
        }
    }
};

// Where element (m, n) of the finished tile stands in shared memory, as float32. Rows 4 apart share their banks.
__device__ __forceinline__ int finished(int m, int n) {
    return m * TILE_N + (n ^ (m % 4 * 8));
}

#ifdef BF16

// A warp's sums: HEIGHT x 32, as I x J tiles of 16x8. Lane 4 g + q / 2 holds rows g and g + 8, columns q and q + 1 of each.
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

    // The i-th 16 of m or n from `first` on by the j-th 16 of k, as four 8x8 matrices: with FIRST_K the second of them is
    // the next in k (so mma wants B: two for the first 8 of n, two for the others), else the next in m (so it wants A).
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

    // write(n, sum over k of B[k, n]), by the warps that hold the first rows.
    template <class Write>
    __device__ __forceinline__ void write_columns(Write write) const {
#pragma unroll
        for (int j = 0; j < J; j++) {
            float x = column[j];
            x += __shfl_xor_sync(ALL, x, 1);
            x += __shfl_xor_sync(ALL, x, 2);
            if (first_row() == 0 && threadIdx.x % 4 == 0) write(first_column() + 8 * j + threadIdx.x % WARP / 4, x);
        }
    }
};

#else

// A thread's sums: I x J, of 16 threads along n and TILE_M / I along m. An axis that is contiguous in shared memory is taken
// four by four, the other with a thread's values spread evenly: either way a warp's loads are free of conflicts.
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

    // x[e][i] = the thread's i-th value of m or n at k + e.
    template <int APART, int COUNT, int OUTER, bool ALONG_K>
    static __device__ __forceinline__ void values(float (&x)[4][COUNT], Tile<OUTER, ALONG_K> tile, int thread, int k) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            float v[4];
            if (ALONG_K)
                load_pack(tile.pack(thread + APART * i, k / 4), v);
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

    // write(n, sum over k of B[k, n]), by the threads that hold the first rows.
    template <class Write>
    __device__ __forceinline__ void write_columns(Write write) const {
#pragma unroll
        for (int j = 0; j < J; j++)
            if (down() == 0) write(index<B_ALONG_K, ACROSS>(across(), j), column[j]);
    }
};

#endif

// The sums of the tile with corner (m, n) over first <= k < last, `first` and the distance multiples of STEP but for the end
// of all. columns: those of B are summed too.
template <bool PACKED_A, bool PACKED_B, class A, class B>
__device__ __forceinline__ Sums<A::ALONG_K, B::ALONG_K> product(
    const A& a, const B& b, int m, int n, int first, int last, bool columns = false
) {
    constexpr int OF_A = TILE_M * STEP, STAGE = OF_A + TILE_N * STEP;
    Real* ring = (Real*)dynamic_shared();
    Source<TILE_M, PACKED_A, A> from_a(a, m);
    Source<TILE_N, PACKED_B, B> from_b(b, n);
    int steps = (last - first + STEP - 1) / STEP;

    auto fill = [&](int step) {
        Real* stage = ring + step % STAGES * STAGE;
        if (step < steps) {
            from_a.copy(stage, first + step * STEP);
            from_b.copy(stage + OF_A, first + step * STEP);
        }
        cp_async_commit();  // of nothing, past the end: a group a step
    };

    Sums<A::ALONG_K, B::ALONG_K> sums;
    for (int step = 0; step < STAGES - 1; step++) fill(step);
    for (int step = 0; step < steps; step++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();           // this step's stage is there for all, and all are done with the last step's,
        fill(step + STAGES - 1);   // which is filled anew
        Real* stage = ring + step % STAGES * STAGE;
        sums.add({stage}, {stage + OF_A}, columns);
    }
    return sums;
}

// write(m, n, v) for P sums in a row, from (m, n) on, each of the tile's; some may lie past M or N.
template <class S, class Write>
__device__ __forceinline__ void finish(const S& sums, int m, int n, Write write) {
    constexpr int PACKS = TILE_N / P;
    float* tile = (float*)dynamic_shared();
    __syncthreads();  // the last stage has been read
    sums.store(tile);
    __syncthreads();
    int column = threadIdx.x % PACKS * P;
    for (int row = threadIdx.x / PACKS; row < TILE_M; row += THREADS / PACKS) {
        float v[P];
#pragma unroll
        for (int i = 0; i < P; i += 4) {
            float4 u = *(const float4*)(tile + finished(row, column + i));
            v[i] = u.x, v[i + 1] = u.y, v[i + 2] = u.z, v[i + 3] = u.w;
        }
        write(m + row, n + column, v);
    }
}

// v into row[n], row[n + 1], ... as far as there are columns. PACKED: as in Source.
template <bool PACKED, class T>
__device__ __forceinline__ void store_row(T* row, int n, int columns, const float (&v)[P]) {
    if (PACKED) {
        if (n >= columns) return;
#pragma unroll
        for (int i = 0; i < P; i += PACK<T>) {
            float u[PACK<T>];
#pragma unroll
            for (int j = 0; j < PACK<T>; j++) u[j] = v[i + j];
            store_pack(row + n + i, u);
        }
    } else {
#pragma unroll
        for (int i = 0; i < P; i++)
            if (n + i < columns) store(row + n + i, v[i]);
    }
}

// A matrix in memory, its rows `pitch` apart. ALONG_K: k runs along its rows; else m or n does.
template <bool K_ALONG_ROWS>
struct Matrix {
    static constexpr bool ALONG_K = K_ALONG_ROWS;
    typedef int Place;
    const Real* data;
    int rows, columns, pitch;

    __device__ __forceinline__ Place row(int i) const {
        return i < rows ? i * pitch : -1;
    }
    __device__ __forceinline__ Place column(int i) const {
        return i < columns ? i : -1;
    }
    __device__ __forceinline__ Place outer(int i) const {
        return ALONG_K ? row(i) : column(i);
    }
    __device__ __forceinline__ Place k(int i) const {
        return ALONG_K ? column(i) : row(i);
    }
    __device__ __forceinline__ bool at(Place a, Place b, int& index) const {
        index = a + b;
        return (a | b) >= 0;
    }
};

// The tile's corner: blocks go along n first, so that neighbours in time share a tile of A.
struct Corner {
    int m, n;
};
__device__ __forceinline__ Corner corner(int columns) {
    int across = (columns + TILE_N - 1) / TILE_N;
    return {(int)(blockIdx.x / across) * TILE_M, (int)(blockIdx.x % across) * TILE_N};
}

// What a split product left, `size` values a part of which the last `vector` are the second output, added in their order.
__device__ __forceinline__ void add_parts(const float* parts, float* y, float* y2, int count, int size, int vector) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    float sum = 0;
#pragma unroll 8
    for (int part = 0; part < count; part++) sum += parts[(long long)part * size + i];
    (i < size - vector ? y[i] : y2[i - size + vector]) = sum;
}
