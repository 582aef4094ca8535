// Matrix products by tiles: the core of linear.cu and conv2d.cu, forwards and backwards.
//
//   C[m, n] = sum_k A[m, k] B[k, n],    m < M, n < N, k < K
//
// A block owns TILE_M x TILE_N sums, which its threads hold in registers, and walks along k in steps of STEP. Each step
// needs a tile of A (TILE_M x STEP) and a tile of B (STEP x TILE_N) in shared memory; a ring of STAGES such pairs is
// kept full by cp.async, so that STAGES - 2 steps are on their way from memory while one is multiplied. At the end the
// sums go through shared memory once, to be written in whole rows.
//
// A and B need not be matrices in memory: what they are is said by a *loader*, a struct with
//
//   ALONG_K                        whether neighbours in memory are neighbours in k, or else in m (of A), in n (of B)
//   Place outer(int)               what an address owes to m (of A) or to n (of B); worked out once
//   Place k(int)                   what it owes to k; worked out each step
//   at(Place, Place, int& index)   where from `data` on the value stands; false if it is a zero that stands nowhere
//                                  (padding, past an end)
//
// bfloat16 is multiplied by tensor cores (product_tensor.cuh), float32 by plain FMA (product_float.cuh); both keep
// float32 sums. What moves the tiles is the same code: it knows packs of 16 bytes only.
//
// Operations 2 M N K. Bytes from memory, at best: A, B and C once. From the second-level cache each tile of A comes
// N / TILE_N times, each of B M / TILE_M times: 16 KB for the 1 MFLOP of a step of 128x128x32. Floor: operations over
// the matrix rate; bytes over the copy bandwidth where K is small.
#pragma once
#include <tile.cuh>
#ifdef BF16
#include <product_tensor.cuh>
#else
#include <product_float.cuh>
#endif

// What a thread copies of each tile: pack `column` of COPIES rows, APART from each other. PACKED: a pack's values are
// neighbours in memory, aligned, and all or none of them exist; else they are fetched one by one.
template <int OUTER, bool PACKED, class Loader>
struct Source {
    static constexpr bool ALONG_K = Loader::ALONG_K;
    typedef Tile<OUTER, ALONG_K> To;
    static constexpr int APART = THREADS / To::PACKS, COPIES = To::ROWS / APART;
    static_assert(APART % 8 == 0 && COPIES > 0, "rows of a thread are permuted alike");
    const Loader& loader;
    int first, row, column, to;  // first: m or n of the tile's corner; to: where its first pack goes
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

// The sums of the tile with corner (m, n) over first <= k < last; both are multiples of STEP, or the end of all k.
// columns: those of B are summed too.
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
        cp_async_wait<STAGES - 2>();  // of the STAGES - 1 steps under way the first, this one, has arrived
        __syncthreads();              // for all threads; and all are done with the stage of the step before
        Real* stage = ring + step % STAGES * STAGE;
        sums.add({stage}, {stage + OF_A}, columns && sums.on_top());
        // Into the stage of the step before. Threads that are still in `add` read this step's stage, which is another
        // one, and nobody is past the next barrier: one a step is enough. After `add`, so that its loads and products
        // need not wait for the addresses of these copies, some ninety instructions.
        fill(step + STAGES - 1);
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

// A sum over k that is cut into parts, gridDim.y of them, each with sums of its own, which add_parts adds.
struct Split {
    int each;  // terms of a part
    int size;  // values of a part: those of the matrix, then the sums of B's columns
};

// The tile's corner: blocks go along n first, so that neighbours in time share a tile of A.
struct Corner {
    int m, n;
};
__device__ __forceinline__ Corner corner(int columns) {
    int across = (columns + TILE_N - 1) / TILE_N;
    return {(int)(blockIdx.x / across) * TILE_M, (int)(blockIdx.x % across) * TILE_N};
}

// The parts of a split product, added in their order: of `size` values each, the last `vector` belong to y2.
__device__ __forceinline__ void add_parts(const float* parts, float* y, float* y2, int count, int size, int vector) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    float sum = 0;
#pragma unroll 8
    for (int part = 0; part < count; part++) sum += parts[(long long)part * size + i];
    (i < size - vector ? y[i] : y2[i - size + vector]) = sum;
}
