// Attention with many heads in float32, forward and backward, by plain multiplications and additions.
//
//   z = q k^T / sqrt(d),  p = softmax(z),  y = p v                        q, y (N, S, heads d)   k, v (N, L, heads d)
//   lse_i = log sum_j exp(z_ij), so that p = exp(z - lse) at any later time
//   delta_i = sum_c dy_ic y_ic = sum_j p_ij dp_ij
//   dv = p^T dy,  dp = dy v^T,  dz = p (dp - delta),  dq = dz k / sqrt(d),  dk = dz^T q / sqrt(d)
//
// The same three kernels as in attention.cu, in the same flash form. A block is 16 x 16 threads over a tile of 64 rows
// that stay and tiles of 64 that stream past; thread (i, j) has the scores of rows 4 i ... 4 i + 3 against 4 j ...
// 4 j + 3 and, of every 32 columns of the output, columns 2 j and 2 j + 1 of its rows. Operands pass through shared
// memory 32 columns at a time, transposed for the scores, so that a thread reads four neighbours at once. HEAD is d
// filled up to a multiple of 32. Where a block's sums of 64 x HEAD would not fit in registers, blocks share the columns
// of the output (blockIdx.y) and each works out all scores: beyond 256 columns, or 128 for dk and dv together.
//
// Operations: forward 4 N S L C (C = heads d), backward 14; operands come from L2 once for every pair of tiles. Floor:
// operations over the rate of float32 multiply-adds.
#include <attention.cuh>

#ifndef HEAD
#define HEAD 64
#endif

constexpr int ROWS = 64;      // engines/cuda/attention_ops.py reads these three
constexpr int CHUNK = 32;     // columns at a time
constexpr int THREADS = 256;  // of a block
constexpr int STRIDE = ROWS + 4;
constexpr int COLUMNS = HEAD <= 256 ? HEAD : HEAD / 2;                               // of y or dq, in a block
constexpr int KEYS_COLUMNS = HEAD <= 128 ? HEAD : HEAD <= 256 ? HEAD / 2 : HEAD / 4;  // of dk and dv
static_assert(COLUMNS % CHUNK == 0 && KEYS_COLUMNS % CHUNK == 0 && HEAD <= 512, "HEAD");

// A tile: rows first ... first + 63 of x (length rows of d).
struct Rows {
    const float* x;
    int pitch, first, length, d;
    __device__ __forceinline__ float at(int row, int column) const {
        return first + row < length && column < d ? x[(size_t)(first + row) * pitch + column] : 0;
    }
};

// z = a b^T. s and t: CHUNK x STRIDE floats of shared memory each.
__device__ __forceinline__ void scores(float (&z)[4][4], Rows a, Rows b, float* s, float* t) {
    int i = threadIdx.x / 16 * 4, j = threadIdx.x % 16 * 4, column = threadIdx.x % CHUNK;
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
        for (int n = 0; n < 4; n++) z[m][n] = 0;
    for (int c = 0; c < a.d; c += CHUNK) {
        __syncthreads();
#pragma unroll 4
        for (int row = threadIdx.x / CHUNK; row < ROWS; row += THREADS / CHUNK) {
            s[column * STRIDE + row] = a.at(row, c + column);
            t[column * STRIDE + row] = b.at(row, c + column);
        }
        __syncthreads();
#pragma unroll 4
        for (int k = 0; k < CHUNK; k++) {
            float u[4], w[4];
            load_pack(s + k * STRIDE + i, u);
            load_pack(t + k * STRIDE + j, w);
#pragma unroll
            for (int m = 0; m < 4; m++)
#pragma unroll
                for (int n = 0; n < 4; n++) z[m][n] += u[m] * w[n];
        }
    }
}

// The scores into shared memory as p[place of the streamed row][row that stays]. The streamed rows stand in the order
// 0, 4, 8 ... 1, 5, 9 ..., so that the threads of a warp write to different banks.
__device__ __forceinline__ void store_scores(const float (&z)[4][4], float* p) {
    int i = threadIdx.x / 16 * 4, j = threadIdx.x % 16;
#pragma unroll
    for (int n = 0; n < 4; n++) {
        float column[4] = {z[0][n], z[1][n], z[2][n], z[3][n]};
        store_pack(p + (16 * n + j) * STRIDE + i, column);
    }
}

// o += p b for this block's columns, the first of which is `column`. t: ROWS x CHUNK floats of shared memory.
template <int CHUNKS>
__device__ __forceinline__ void accumulate(float (&o)[CHUNKS][4][2], const float* p, Rows b, int column, float* t) {
    int i = threadIdx.x / 16 * 4, j = threadIdx.x % 16 * 2;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        __syncthreads();
#pragma unroll 4
        for (int place = threadIdx.x / CHUNK; place < ROWS; place += THREADS / CHUNK)
            t[place * CHUNK + threadIdx.x % CHUNK] =
                b.at(place % 16 * 4 + place / 16, column + c * CHUNK + threadIdx.x % CHUNK);
        __syncthreads();
#pragma unroll 4
        for (int k = 0; k < ROWS; k++) {
            float u[4];
            load_pack(p + k * STRIDE + i, u);
            float2 w = *(const float2*)(t + k * CHUNK + j);
#pragma unroll
            for (int m = 0; m < 4; m++) o[c][m][0] += u[m] * w.x, o[c][m][1] += u[m] * w.y;
        }
    }
}

template <int CHUNKS>
__device__ __forceinline__ void clear(float (&o)[CHUNKS][4][2]) {
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
#pragma unroll
        for (int m = 0; m < 4; m++) o[c][m][0] = o[c][m][1] = 0;
}

// This thread's sums times a factor a row into x.
template <int CHUNKS>
__device__ __forceinline__ void put(const float (&o)[CHUNKS][4][2], const float (&factor)[4], float* x, int pitch,
                                    int first, int length, int column, int d) {
    int i = threadIdx.x / 16 * 4, j = threadIdx.x % 16 * 2;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
#pragma unroll
        for (int m = 0; m < 4; m++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int row = first + i + m, at = column + c * CHUNK + j + e;
                if (row < length && at < d) x[(size_t)row * pitch + at] = o[c][m][e] * factor[m];
            }
}

// Over the 16 threads of the same rows.
__device__ __forceinline__ float row_sum(float x) {
#pragma unroll
    for (int mask = 8; mask; mask /= 2) x += __shfl_xor_sync(ALL, x, mask);
    return x;
}
__device__ __forceinline__ float row_max(float x) {
#pragma unroll
    for (int mask = 8; mask; mask /= 2) x = fmaxf(x, __shfl_xor_sync(ALL, x, mask));
    return x;
}

// lse (N, heads, stride): stride is S rounded up to a multiple of 64. scale: 1 / sqrt(d).
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention(PARAM Attention given) {
    int S = given.S, L = given.L, d = given.d;
    float scale = given.scale;
    __align__(16) __shared__ float s[CHUNK * STRIDE], t[CHUNK * STRIDE], p[ROWS * STRIDE];
    Place place(blockIdx.x, tiles_of(S, ROWS), given.heads);
    int i = threadIdx.x / 16 * 4, j = threadIdx.x % 16 * 4, first = place.tile * ROWS, column = blockIdx.y * COLUMNS;
    Rows queries{place.of(given.q, S, d), given.q.pitch, first, S, d};
    Rows keys{place.of(given.k, L, d), given.k.pitch, 0, L, d};
    Rows values{place.of(given.v, L, d), given.v.pitch, 0, L, d};

    float o[COLUMNS / CHUNK][4][2], m[4] = {LOWEST, LOWEST, LOWEST, LOWEST}, l[4] = {};  // l: this thread's keys
    clear(o);
    for (; keys.first < L; keys.first = values.first += ROWS) {
        float z[4][4];
        scores(z, queries, keys, s, t);
#pragma unroll
        for (int r = 0; r < 4; r++) {
            float largest = m[r];
#pragma unroll
            for (int n = 0; n < 4; n++) {
                z[r][n] = keys.first + j + n < L ? z[r][n] * scale : LOWEST;
                largest = fmaxf(largest, z[r][n]);
            }
            largest = row_max(largest);
            float factor = expf(m[r] - largest);
            m[r] = largest, l[r] *= factor;
#pragma unroll
            for (int n = 0; n < 4; n++) l[r] += z[r][n] = expf(z[r][n] - largest);
#pragma unroll
            for (int c = 0; c < COLUMNS / CHUNK; c++) o[c][r][0] *= factor, o[c][r][1] *= factor;
        }
        store_scores(z, p);
        accumulate(o, p, values, column, t);
    }
    float factor[4];
#pragma unroll
    for (int r = 0; r < 4; r++) {
        l[r] = row_sum(l[r]), factor[r] = 1 / l[r];
        if (j == 0 && column == 0) place.row(given.lse, given)[first + i + r] = m[r] + logf(l[r]);
    }
    put(o, factor, place.of(given.y, S, d), given.y.pitch, first, S, column, d);
}

// delta (N, heads, stride), written here for attention_backward_keys.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention_backward_queries(PARAM Attention given) {
    int S = given.S, L = given.L, d = given.d;
    float scale = given.scale;
    __align__(16) __shared__ float s[CHUNK * STRIDE], t[CHUNK * STRIDE], p[ROWS * STRIDE];
    Place place(blockIdx.x, tiles_of(S, ROWS), given.heads);
    int i = threadIdx.x / 16 * 4, j = threadIdx.x % 16 * 4, first = place.tile * ROWS, column = blockIdx.y * COLUMNS;
    Rows queries{place.of(given.q, S, d), given.q.pitch, first, S, d};
    Rows dys{place.of(given.dy, S, d), given.dy.pitch, first, S, d};
    Rows ys{place.of(given.y, S, d), given.y.pitch, first, S, d};
    Rows keys{place.of(given.k, L, d), given.k.pitch, 0, L, d};
    Rows values{place.of(given.v, L, d), given.v.pitch, 0, L, d};

    float sums[4], dots[4];
#pragma unroll
    for (int r = 0; r < 4; r++) {
        float dot = 0;
        for (int c = threadIdx.x % 16; c < d; c += 16) dot += ys.at(i + r, c) * dys.at(i + r, c);
        dots[r] = row_sum(dot);
        sums[r] = place.row(given.lse, given)[first + i + r];
        if (j == 0 && column == 0) place.row(given.delta, given)[first + i + r] = dots[r];
    }
    float o[COLUMNS / CHUNK][4][2];
    clear(o);
    for (; keys.first < L; keys.first = values.first += ROWS) {
        float z[4][4], dp[4][4];
        scores(z, queries, keys, s, t);
        scores(dp, dys, values, s, t);
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
            for (int n = 0; n < 4; n++)  // a key that is not there has z = 0, not -inf
                z[r][n] = keys.first + j + n < L ? expf(z[r][n] * scale - sums[r]) * (dp[r][n] - dots[r]) : 0;
        store_scores(z, p);
        accumulate(o, p, keys, column, t);
    }
    float factor[4] = {scale, scale, scale, scale};
    put(o, factor, place.of(given.dq, S, d), given.dq.pitch, first, S, column, d);
}

// Here rows are keys and columns queries: what the header calls z, p, dp and dz stands transposed. A query that is not
// there has q = dy = 0 and a finite lse, and so adds nothing.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention_backward_keys(PARAM Attention given) {
    int S = given.S, L = given.L, d = given.d;
    float scale = given.scale;
    __align__(16) __shared__ float s[CHUNK * STRIDE], t[CHUNK * STRIDE], p[ROWS * STRIDE];
    Place place(blockIdx.x, tiles_of(L, ROWS), given.heads);
    int j = threadIdx.x % 16 * 4, first = place.tile * ROWS, column = blockIdx.y * KEYS_COLUMNS;
    Rows keys{place.of(given.k, L, d), given.k.pitch, first, L, d};
    Rows values{place.of(given.v, L, d), given.v.pitch, first, L, d};
    Rows queries{place.of(given.q, S, d), given.q.pitch, 0, S, d};
    Rows dys{place.of(given.dy, S, d), given.dy.pitch, 0, S, d};

    float dk_sum[KEYS_COLUMNS / CHUNK][4][2], dv_sum[KEYS_COLUMNS / CHUNK][4][2];
    clear(dk_sum);
    clear(dv_sum);
    for (; queries.first < S; queries.first = dys.first += ROWS) {
        float z[4][4], dp[4][4], sums[4], dots[4];
        scores(z, keys, queries, s, t);
        scores(dp, values, dys, s, t);
        load_pack(place.row(given.lse, given) + queries.first + j, sums);
        load_pack(place.row(given.delta, given) + queries.first + j, dots);
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
            for (int n = 0; n < 4; n++) {
                z[r][n] = expf(z[r][n] * scale - sums[n]);
                dp[r][n] = z[r][n] * (dp[r][n] - dots[n]);
            }
        store_scores(z, p);
        accumulate(dv_sum, p, dys, column, t);
        __syncthreads();
        store_scores(dp, p);
        accumulate(dk_sum, p, queries, column, t);
    }
    float once[4] = {1, 1, 1, 1}, factor[4] = {scale, scale, scale, scale};
    put(dk_sum, factor, place.of(given.dk, L, d), given.dk.pitch, first, L, column, d);
    put(dv_sum, once, place.of(given.dv, L, d), given.dv.pitch, first, L, column, d);
}
