// Attention with many heads in bfloat16, forward and backward, on tensor cores; no score ever goes to global memory.
//
//   z = q k^T / sqrt(d),  p = softmax(z),  y = p v                        q, y (N, S, heads d)   k, v (N, L, heads d)
//   lse_i = log2 sum_j exp(z_ij), so that p = exp(z) / 2^lse at any later time
//   delta_i = sum_c dy_ic y_ic = sum_j p_ij dp_ij
//   dv = p^T dy,  dp = dy v^T,  dz = p (dp - delta),  dq = dz k / sqrt(d),  dk = dz^T q / sqrt(d)
//
// Forward is the flash form: keys pass in tiles, a row keeps its largest score m so far, the sum l of exp(z - m) and
// the unnormalised y; a larger m rescales both. Backward works p out again from lse: one kernel for dq, a block per
// tile of queries, which also writes delta, and one for dk and dv, a block per tile of keys. No atomics: every sum has
// one owner, and repeated runs are equal in bits.
//
// HEAD is d filled up with zeros to a multiple of 16 SPLIT. A warp has one or two bands of 16 of the rows that stay
// and, of HEAD, a slice of HEAD / SPLIT columns: it works its scores out over the slice, the SPLIT warps of the same
// rows add theirs through shared memory, and each goes on to its slice of the output (SPLIT > 1 where sums of 16 x HEAD
// would not fit in registers). A second band uses each operand from shared memory, whose bandwidth is the limit, twice.
// A lane holds scores and outputs as mma_16816 lays them out: rows lane / 4 and lane / 4 + 8, two columns of every
// eight; so a row's maximum is one over four lanes, and scores become the next product's first operand without leaving
// registers.
//
// Tiles lie in shared memory with 16 bytes between rows, which keeps ldmatrix free of bank conflicts. The streamed ones
// are fetched by cp.async a tile ahead (STAGES = 2), or after a barrier (STAGES = 1) where two do not go into 99 KiB,
// what a block may have on every GPU from sm_80 on.
//
// Operations: forward 4 N S L C (C = heads d), backward 10, of which z and dp are done twice: 14. Bytes: forward
// 2 N C (2 S + 2 L), backward 2 N C (5 S + 4 L); the streamed tiles come again from L2, 4 L C bytes for 64 rows of S.
// Floor: operations over the matrix rate; below S = L = 300 or so, bytes over the copy bandwidth.
#include <attention_tiles.cuh>

// Blocks of a multiprocessor to leave registers for: what 227 KiB of shared memory hold, where none spills.
constexpr int FORWARD_BLOCKS = HEAD <= 64 ? 6 : HEAD <= 128 ? 4 : 2;
constexpr int QUERIES_BLOCKS = HEAD <= 128 ? 4 : 2;
constexpr int KEYS_BLOCKS = HEAD <= 64 ? 4 : 2;

// lse (N, heads, stride): stride is S rounded up to a multiple of 64, and all rows of a block's tile are written.
// scale: log2(e) / sqrt(d). vector: d, all pitches and addresses are multiples of 8 elements.
extern "C" __global__ void __launch_bounds__(Forward::THREADS, FORWARD_BLOCKS)
    attention(PARAM Attention given) {
    int S = given.S, L = given.L, d = given.d;
    bool vector = given.vector;
    float scale = given.scale;
    constexpr int TILE = Forward::TILE, ROWS = Forward::ROWS, BANDS = Forward::BANDS;
    Place place(blockIdx.x, tiles_of(S, ROWS), given.heads);
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, slice = warp % SPLIT * SLICE;
    int row = warp / SPLIT * 16 * BANDS, first = place.tile * ROWS;  // this warp's in the block's tile; the block's

    bf16* q_tile = (bf16*)dynamic_shared();  // ROWS x PITCH
    Stream<Forward> stream{q_tile + ROWS * PITCH, place.of(given.k, L, d), place.of(given.v, L, d), given.k.pitch,
                           given.v.pitch, L, d, vector, nullptr, nullptr};
    float* share = stream.end();
    fetch<ROWS, Forward::THREADS>(q_tile, place.of(given.q, S, d), given.q.pitch, first, S, d, vector);
    stream.fetch_tile(0);
    bf16* q_rows = q_tile + row * PITCH + slice;  // this warp's

    float o[BANDS][SLICE / 8][4], m[BANDS][2], l[BANDS][2];  // l: of this lane's columns
    clear<BANDS>(o);
#pragma unroll
    for (int band = 0; band < BANDS; band++) m[band][0] = m[band][1] = LOWEST, l[band][0] = l[band][1] = 0;
    for (int i = 0; i < stream.count(); i++) {
        stream.wait(i);
        float z[BANDS][TILE / 8][4];
        scores<BANDS, TILE>(z, q_rows, stream.tile_a(i) + slice);
        if (SPLIT > 1) {
            share_scores<BANDS, TILE>(share, z);
            __syncthreads();
            add_scores<BANDS, TILE>(share, z);
        }
        if ((i + 1) * TILE > L) mask<BANDS, TILE>(z, L - i * TILE, LOWEST);
#pragma unroll
        for (int band = 0; band < BANDS; band++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                float largest = m[band][r];
#pragma unroll
                for (int j = 0; j < TILE / 8; j++)
                    largest = fmaxf(largest, fmaxf(z[band][j][2 * r], z[band][j][2 * r + 1]));
                largest = fmaxf(largest, __shfl_xor_sync(ALL, largest, 1));
                largest = fmaxf(largest, __shfl_xor_sync(ALL, largest, 2));
                float factor = exp2_approx((m[band][r] - largest) * scale), shift = largest * scale;
                m[band][r] = largest, l[band][r] *= factor;
#pragma unroll
                for (int c = 0; c < SLICE / 8; c++) o[band][c][2 * r] *= factor, o[band][c][2 * r + 1] *= factor;
#pragma unroll
                for (int j = 0; j < TILE / 8; j++)
#pragma unroll
                    for (int e = 2 * r; e < 2 * r + 2; e++)
                        l[band][r] += z[band][j][e] = exp2_approx(z[band][j][e] * scale - shift);
            }
        accumulate<BANDS, TILE>(o, z, stream.tile_b(i) + slice);
        stream.release(i);
    }
    cp_async_wait<0>();
#pragma unroll
    for (int band = 0; band < BANDS; band++) {
        int at = first + row + 16 * band;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            l[band][r] = sum_of_four(l[band][r]);
            if (slice == 0 && lane % 4 == 0)
                place.row(given.lse, given)[at + lane / 4 + 8 * r] = m[band][r] * scale + log2f(l[band][r]);
        }
        put(o[band], 1 / l[band][0], 1 / l[band][1], q_rows + band * 16 * PITCH, place.of(given.y, S, d), given.y.pitch,
            at, S, slice, d, vector);
    }
}

// delta (N, heads, stride), written here for attention_backward_keys.
extern "C" __global__ void __launch_bounds__(Queries::THREADS, QUERIES_BLOCKS)
    attention_backward_queries(PARAM Attention given) {
    int S = given.S, L = given.L, d = given.d;
    bool vector = given.vector;
    float scale = given.scale;
    constexpr int TILE = Queries::TILE, ROWS = Queries::ROWS, BANDS = Queries::BANDS;
    Place place(blockIdx.x, tiles_of(S, ROWS), given.heads);
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, slice = warp % SPLIT * SLICE;
    int row = warp / SPLIT * 16 * BANDS, first = place.tile * ROWS;

    bf16 *q_tile = (bf16*)dynamic_shared(), *dy_tile = q_tile + ROWS * PITCH;
    Stream<Queries> stream{dy_tile + ROWS * PITCH, place.of(given.k, L, d), place.of(given.v, L, d), given.k.pitch,
                           given.v.pitch, L, d, vector, nullptr, nullptr};
    float* share = stream.end();
    fetch<ROWS, Queries::THREADS>(q_tile, place.of(given.q, S, d), given.q.pitch, first, S, d, vector);
    fetch<ROWS, Queries::THREADS>(dy_tile, place.of(given.dy, S, d), given.dy.pitch, first, S, d, vector);
    stream.fetch_tile(0);
    bf16 *q_rows = q_tile + row * PITCH + slice, *dy_rows = dy_tile + row * PITCH + slice;

    // The SPLIT warps of the same rows each work delta out: all need it, the first writes it.
    float sums[BANDS][2], dots[BANDS][2];
#pragma unroll
    for (int band = 0; band < BANDS; band++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int at = first + row + 16 * band + lane / 4 + 8 * r;
            size_t begin = (size_t)at * given.y.pitch;
            float sum = 0;
            if (at < S) sum = dot(place.of(given.y, S, d) + begin, place.of(given.dy, S, d) + begin, d, vector);
            dots[band][r] = sum_of_four(sum);
            if (slice == 0 && lane % 4 == 0) place.row(given.delta, given)[at] = dots[band][r];
            sums[band][r] = place.row(given.lse, given)[at];
        }

    float o[BANDS][SLICE / 8][4];
    clear<BANDS>(o);
    for (int i = 0; i < stream.count(); i++) {
        stream.wait(i);
        float z[BANDS][TILE / 8][4], dp[BANDS][TILE / 8][4];
        scores<BANDS, TILE>(z, q_rows, stream.tile_a(i) + slice);
        scores<BANDS, TILE>(dp, dy_rows, stream.tile_b(i) + slice);
        if (SPLIT > 1) {
            share_scores<BANDS, TILE>(share, z);
            share_scores<BANDS, TILE>(share + Queries::SHARE, dp);
            __syncthreads();
            add_scores<BANDS, TILE>(share, z);
            add_scores<BANDS, TILE>(share + Queries::SHARE, dp);
        }
#pragma unroll
        for (int band = 0; band < BANDS; band++)
#pragma unroll
            for (int j = 0; j < TILE / 8; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    float p = exp2_approx(z[band][j][e] * scale - sums[band][e / 2]);
                    z[band][j][e] = p * (dp[band][j][e] - dots[band][e / 2]);
                }
        // A key that is not there has z = 0, not -inf, and p may be infinite.
        if ((i + 1) * TILE > L) mask<BANDS, TILE>(z, L - i * TILE, 0);
        accumulate<BANDS, TILE>(o, z, stream.tile_a(i) + slice);
        stream.release(i);
    }
    cp_async_wait<0>();
    float factor = scale * LN2;  // 1 / sqrt(d)
#pragma unroll
    for (int band = 0; band < BANDS; band++)
        put(o[band], factor, factor, q_rows + band * 16 * PITCH, place.of(given.dq, S, d), given.dq.pitch,
            first + row + 16 * band, S, slice, d, vector);
}

// Here rows are keys and columns queries: what the header calls z, p, dp and dz stands transposed. A query that is not
// there has q = dy = 0 and a finite lse, and so adds nothing.
extern "C" __global__ void __launch_bounds__(Keys::THREADS, KEYS_BLOCKS)
    attention_backward_keys(PARAM Attention given) {
    int S = given.S, L = given.L, d = given.d;
    bool vector = given.vector;
    float scale = given.scale;
    constexpr int TILE = Keys::TILE, ROWS = Keys::ROWS, BANDS = Keys::BANDS;
    Place place(blockIdx.x, tiles_of(L, ROWS), given.heads);
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, slice = warp % SPLIT * SLICE;
    int row = warp / SPLIT * 16 * BANDS, first = place.tile * ROWS;

    bf16 *k_tile = (bf16*)dynamic_shared(), *v_tile = k_tile + ROWS * PITCH;
    Stream<Keys> stream{v_tile + ROWS * PITCH, place.of(given.q, S, d), place.of(given.dy, S, d), given.q.pitch,
                        given.dy.pitch, S, d, vector, place.row(given.lse, given), place.row(given.delta, given)};
    float* share = stream.end();
    fetch<ROWS, Keys::THREADS>(k_tile, place.of(given.k, L, d), given.k.pitch, first, L, d, vector);
    fetch<ROWS, Keys::THREADS>(v_tile, place.of(given.v, L, d), given.v.pitch, first, L, d, vector);
    stream.fetch_tile(0);
    bf16 *k_rows = k_tile + row * PITCH + slice, *v_rows = v_tile + row * PITCH + slice;

    float dk_sum[BANDS][SLICE / 8][4], dv_sum[BANDS][SLICE / 8][4];
    clear<BANDS>(dk_sum);
    clear<BANDS>(dv_sum);
    for (int i = 0; i < stream.count(); i++) {
        stream.wait(i);
        float z[BANDS][TILE / 8][4], dp[BANDS][TILE / 8][4];
        scores<BANDS, TILE>(z, k_rows, stream.tile_a(i) + slice);
        scores<BANDS, TILE>(dp, v_rows, stream.tile_b(i) + slice);
        if (SPLIT > 1) {
            share_scores<BANDS, TILE>(share, z);
            share_scores<BANDS, TILE>(share + Keys::SHARE, dp);
            __syncthreads();
            add_scores<BANDS, TILE>(share, z);
            add_scores<BANDS, TILE>(share + Keys::SHARE, dp);
        }
        const float* statistics = stream.statistics(i) + lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < TILE / 8; j++) {
            float2 sums = *(const float2*)(statistics + 8 * j), dots = *(const float2*)(statistics + TILE + 8 * j);
#pragma unroll
            for (int band = 0; band < BANDS; band++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    float p = exp2_approx(z[band][j][e] * scale - (e % 2 ? sums.y : sums.x));
                    z[band][j][e] = p, dp[band][j][e] = p * (dp[band][j][e] - (e % 2 ? dots.y : dots.x));
                }
        }
        accumulate<BANDS, TILE>(dv_sum, z, stream.tile_b(i) + slice);
        accumulate<BANDS, TILE>(dk_sum, dp, stream.tile_a(i) + slice);
        stream.release(i);
    }
    cp_async_wait<0>();
    float factor = scale * LN2;  // 1 / sqrt(d)
#pragma unroll
    for (int band = 0; band < BANDS; band++) {
        int at = first + row + 16 * band;
        put(dk_sum[band], factor, factor, k_rows + band * 16 * PITCH, place.of(given.dk, L, d), given.dk.pitch, at, L,
            slice, d, vector);
        put(dv_sum[band], 1, 1, v_rows + band * 16 * PITCH, place.of(given.dv, L, d), given.dv.pitch, at, L, slice, d,
            vector);
    }
}
