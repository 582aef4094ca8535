// Group norm, with SILU=1 a SiLU after it, with ADAPTIVE=1 a scale s and a shift t a sample and channel in between.
// x is (N, P, C): samples, positions, channels; a group is C / G neighbouring channels at all positions of a sample.
//
//   xhat = (x - mean) / sd,  sd^2 = mean((x - mean)^2) + epsilon over a group
//   h = w xhat + b,   z = (1 + s) h + t,   y = silu(z)
//
//   dz = dy silu'(z);  with A = sum dz, B = sum dz xhat over the positions of a sample,
//   dt = A,  ds = w B + b A,  db = sum_n (1 + s) A,  dw = sum_n (1 + s) B
//   dx = (dxhat - mean(dxhat) - xhat mean(dxhat xhat)) / sd,   dxhat = w (1 + s) dz
//
// Two launches each way: group_statistics then group_norm; group_sums then group_norm_backward. A sample is cut into
// `chunks` of `rows` positions, a block each, that read whole rows of C (see Tile). What the first launch finds in a chunk,
// the second puts together, in a fixed order, a warp a group; its first blocks add up the gradients of channels.
//
// In short, with u = x - mean and a = w (1 + s) / sd:  z = a u + b',  b' = (1 + s) b + t,  dx = a dz - c1 - c2 u,
// c1 = mean(a dz), c2 = mean(a dz u) / sd^2: nothing but x, the mean and 1 / sd of a group is kept for the backward.
//
// The variance is two passes over what a thread holds of a channel, BATCH rows in registers, then Chan's merge of
// (count, mean, M2): E[x^2] - mean^2 is nowhere.
//
// Bytes, n = N P C values: forward 3 n sizeof(Real), two of them reads of the same x; backward 5 n sizeof(Real), the second
// reads of x and dy among them. Partials: 8 bytes a channel (backward) and group of a chunk. Floor: bytes over the copy
// bandwidth; 2 n and 3 n where the second reads find L2.
#include <rows.cuh>

#ifndef SILU
#define SILU 0
#endif
#ifndef ADAPTIVE
#define ADAPTIVE 0
#endif

constexpr int BATCH = 4;  // rows that a thread has under way

// What the kernels are given, each what it needs. x, y, dy, dx (N, P, C); weight, bias, dweight, dbias (C,); mean and
// rsd = 1 / sd (N, G); scale, shift, dscale, dshift (N, C), null without ADAPTIVE; channel (N, chunks, C), partial
// (N, G, chunks).
struct GroupNorm {
    const Real *x, *dy;
    const float *weight, *bias;
    Pitched<const Real> scale, shift;
    Real *y, *dx;
    Pitched<Real> dscale, dshift;
    float *mean, *rsd, *dweight, *dbias;
    float2 *channel, *partial;
    int N, P, C, G, chunks, rows;
    float epsilon;
};

// What a block works on: rows [first, last) of sample n.
struct Chunk {
    int n, k, first, last;
};
__device__ __forceinline__ Chunk chunk_of(int block, const GroupNorm& of) {
    int n = block / of.chunks, k = block % of.chunks;
    return {n, k, k * of.rows, min(of.P, (k + 1) * of.rows)};
}

// w (1 + s) and b' of V channels of sample n.
__device__ __forceinline__ void coefficients(float (&a)[V], float (&b)[V], const GroupNorm& of, int n, int c) {
    load_floats(of.weight + c, a);
    load_floats(of.bias + c, b);
    if constexpr (ADAPTIVE) {
        float s[V], t[V];
        load_pack(of.scale.data + (size_t)n * of.scale.pitch + c, s);
        load_pack(of.shift.data + (size_t)n * of.shift.pitch + c, t);
#pragma unroll
        for (int j = 0; j < V; j++) a[j] *= 1 + s[j], b[j] = b[j] * (1 + s[j]) + t[j];
    }
}

// f(j, group of channel c + j) for V channels.
template <class F>
__device__ __forceinline__ void for_groups(int c, int size, F f) {
    int g = c / size, next = (g + 1) * size;
#pragma unroll
    for (int j = 0; j < V; j++) {
        if (c + j == next) g++, next += size;
        f(j, g);
    }
}

__device__ __forceinline__ float activation(float z) {
    if constexpr (SILU) return z * logistic(z);
    return z;
}
__device__ __forceinline__ float slope(float z) {
    if constexpr (!SILU) return 1;
    float s = logistic(z);
    return s * (1 + z * (1 - s));
}

// partial: mean and M2 = sum (x - mean)^2 of a group in a chunk.
// Shared: mean and M2 of each channel (2 C floats), then scratch of merge_rows.
extern "C" __global__ void __launch_bounds__(256)
    group_statistics(PARAM GroupNorm of) {
    int P = of.P, C = of.C, G = of.G;
    float* mean = (float*)dynamic_shared();
    float* M2 = mean + C;
    float* scratch = M2 + C;
    Tile t = tile_of(C);
    Chunk chunk = chunk_of(blockIdx.x, of);
    const Real* base = of.x + (size_t)chunk.n * P * C;

    for (int turn = 0; turn < C; turn += t.L * V) {
        int c = turn + t.column * V;
        float a[2 * V + 1] = {};  // V means, V M2, their count
        if (t.row < t.R && c < C) {
            for (int p = chunk.first + t.row; p < chunk.last; p += BATCH * t.R) {
                float v[BATCH][V];
#pragma unroll
                for (int i = 0; i < BATCH; i++)
                    if (p + i * t.R < chunk.last) load_pack(base + (p + i * t.R) * C + c, v[i]);
                float count = min(BATCH, (chunk.last - p + t.R - 1) / t.R);
                float each = __fdividef(1, count), part = __fdividef(count, a[2 * V] + count);
#pragma unroll
                for (int j = 0; j < V; j++) {
                    float sum = v[0][j], squares = 0;
#pragma unroll
                    for (int i = 1; i < BATCH; i++) sum += i < count ? v[i][j] : 0;
                    float here = sum * each;
#pragma unroll
                    for (int i = 0; i < BATCH; i++) {
                        float d = i < count ? v[i][j] - here : 0;
                        squares += d * d;
                    }
                    float d = here - a[j];
                    a[j] += d * part;
                    a[V + j] += squares + d * d * (a[2 * V] * part);
                }
                a[2 * V] += count;
            }
        }
        merge_rows(a, t, scratch, [](float(&a)[2 * V + 1], const float(&b)[2 * V + 1]) {
            float count = a[2 * V] + b[2 * V];
            if (b[2 * V] == 0) return;
            float part = b[2 * V] / count;
#pragma unroll
            for (int j = 0; j < V; j++) {
                float d = b[j] - a[j];
                a[j] += d * part;
                a[V + j] += b[V + j] + d * d * (a[2 * V] * part);
            }
            a[2 * V] = count;
        });
        if (t.row == 0 && c < C) {
#pragma unroll
            for (int j = 0; j < V; j++) mean[c + j] = a[j], M2[c + j] = a[V + j];
        }
    }
    __syncthreads();

    // The channels of a group have one count: again two passes.
    int lane = threadIdx.x % WARP, size = C / G, count = chunk.last - chunk.first;
    for (int g = threadIdx.x / WARP; g < G; g += blockDim.x / WARP) {
        float start = mean[g * size], sum = 0, squares = 0;
#pragma unroll 1
        for (int c = lane; c < size; c += WARP) sum += mean[g * size + c] - start;
        float m = start + warp_sum(sum) / size;
#pragma unroll 1
        for (int c = lane; c < size; c += WARP) {
            float d = mean[g * size + c] - m;
            squares += M2[g * size + c] + count * d * d;
        }
        squares = warp_sum(squares);
        if (lane == 0) of.partial[((size_t)chunk.n * G + g) * of.chunks + chunk.k] = make_float2(m, squares);
    }
}

// y; mean and rsd = 1 / sd (N, G), which the first chunk of a sample writes. Shared: G float2.
extern "C" __global__ void __launch_bounds__(256)
    group_norm(PARAM GroupNorm of) {
    int P = of.P, C = of.C, G = of.G, chunks = of.chunks, rows = of.rows;
    float2* group = (float2*)dynamic_shared();  // mean, 1 / sd
    Tile t = tile_of(C);
    Chunk chunk = chunk_of(blockIdx.x, of);
    int lane = threadIdx.x % WARP, size = C / G;

    for (int g = threadIdx.x / WARP; g < G; g += blockDim.x / WARP) {
        const float2* part = of.partial + ((size_t)chunk.n * G + g) * chunks;
        float start = part[0].x, sum = 0, squares = 0;
#pragma unroll 1
        for (int k = lane; k < chunks; k += WARP) sum += min(rows, P - k * rows) * (part[k].x - start);
        float m = start + warp_sum(sum) / P;
#pragma unroll 1
        for (int k = lane; k < chunks; k += WARP) {
            float d = part[k].x - m;
            squares += part[k].y + (float)min(rows, P - k * rows) * size * (d * d);
        }
        float r = rsqrtf(warp_sum(squares) / ((float)P * size) + of.epsilon);
        if (lane == 0) {
            group[g] = make_float2(m, r);
            if (chunk.k == 0) of.mean[chunk.n * G + g] = m, of.rsd[chunk.n * G + g] = r;
        }
    }
    __syncthreads();

    const Real* in = of.x + (size_t)chunk.n * P * C;
    Real* out = of.y + (size_t)chunk.n * P * C;
    for (int c = t.column * V; t.row < t.R && c < C; c += t.L * V) {
        float m[V], a[V], b[V];
        coefficients(a, b, of, chunk.n, c);
        for_groups(c, size, [&](int j, int g) {
            float2 v = group[g];
            m[j] = v.x, a[j] *= v.y;
        });
        for (int p = chunk.first + t.row; p < chunk.last; p += BATCH * t.R) {
            float v[BATCH][V];
#pragma unroll
            for (int i = 0; i < BATCH; i++)
                if (p + i * t.R < chunk.last) load_pack(in + (p + i * t.R) * C + c, v[i]);
#pragma unroll
            for (int i = 0; i < BATCH; i++) {
#pragma unroll
                for (int j = 0; j < V; j++) v[i][j] = activation((v[i][j] - m[j]) * a[j] + b[j]);
                if (p + i * t.R < chunk.last) store_pack(out + (p + i * t.R) * C + c, v[i]);
            }
        }
    }
}

constexpr int PAIRS = 2;  // rows of dy and x that a thread has under way in the backward

// channel: A and B in a chunk; partial: sum a dz and sum a dz u of a group in a chunk.
// Shared: the two sums of each channel (2 C floats), then scratch of add_rows.
extern "C" __global__ void __launch_bounds__(256)
    group_sums(PARAM GroupNorm of) {
    int P = of.P, C = of.C, G = of.G;
    float* first = (float*)dynamic_shared();
    float* second = first + C;
    float* scratch = second + C;
    Tile t = tile_of(C);
    Chunk chunk = chunk_of(blockIdx.x, of);
    int size = C / G;
    const Real* dys = of.dy + (size_t)chunk.n * P * C;
    const Real* xs = of.x + (size_t)chunk.n * P * C;
    const float *mean = of.mean + chunk.n * G, *rsd = of.rsd + chunk.n * G;

    for (int turn = 0; turn < C; turn += t.L * V) {
        int c = turn + t.column * V;
        float s[2 * V] = {}, a[V] = {};  // sum dz, sum dz u
        if (t.row < t.R && c < C) {
            float m[V], b[V];
            coefficients(a, b, of, chunk.n, c);
            for_groups(c, size, [&](int j, int g) { m[j] = mean[g], a[j] *= rsd[g]; });
            for (int p = chunk.first + t.row; p < chunk.last; p += PAIRS * t.R) {
                float d[PAIRS][V], u[PAIRS][V];
#pragma unroll
                for (int i = 0; i < PAIRS; i++)
                    if (p + i * t.R < chunk.last) {
                        load_pack(dys + (p + i * t.R) * C + c, d[i]);
                        load_pack(xs + (p + i * t.R) * C + c, u[i]);
                    }
#pragma unroll
                for (int i = 0; i < PAIRS; i++)
                    if (p + i * t.R < chunk.last) {
#pragma unroll
                        for (int j = 0; j < V; j++) {
                            float from = u[i][j] - m[j], dz = d[i][j] * slope(from * a[j] + b[j]);
                            s[j] += dz, s[V + j] += dz * from;
                        }
                    }
            }
        }
        add_rows(s, t, scratch);
        if (t.row == 0 && c < C) {
            for_groups(c, size, [&](int j, int g) {
                of.channel[(size_t)blockIdx.x * C + c + j] = make_float2(s[j], s[V + j] * rsd[g]);
                first[c + j] = a[j] * s[j], second[c + j] = a[j] * s[V + j];
            });
        }
    }
    __syncthreads();

    int lane = threadIdx.x % WARP;
    for (int g = threadIdx.x / WARP; g < G; g += blockDim.x / WARP) {
        float one = 0, two = 0;
#pragma unroll 1
        for (int c = lane; c < size; c += WARP) one += first[g * size + c], two += second[g * size + c];
        one = warp_sum(one), two = warp_sum(two);
        if (lane == 0) of.partial[((size_t)chunk.n * G + g) * of.chunks + chunk.k] = make_float2(one, two);
    }
}

// The first ceil(C / TOTAL_CHANNELS) blocks: dweight, dbias. With ADAPTIVE the next ceil(N C / threads): dscale,
// dshift, an element a thread. The others: dx. Shared: G float4, and two floats a thread.
extern "C" __global__ void __launch_bounds__(256)
    group_norm_backward(PARAM GroupNorm of) {
    int N = of.N, P = of.P, C = of.C, G = of.G, chunks = of.chunks;
    int block = blockIdx.x, size = C / G, totals = (C + TOTAL_CHANNELS - 1) / TOTAL_CHANNELS;
    if (block < totals) {
        auto factor = [&](int i, int c) {
            if constexpr (ADAPTIVE) return 1 + load(of.scale.data + (size_t)(i / chunks) * of.scale.pitch + c);
            return 1.0f;
        };
        add_partials(of.channel, N * chunks, C, block, factor, of.dbias, of.dweight, (float2*)dynamic_shared());
        return;
    }
    block -= totals;
    if constexpr (ADAPTIVE) {
        int threads = blockDim.x, blocks = (N * C + threads - 1) / threads;
        if (block < blocks) {
            int i = block * threads + (int)threadIdx.x, n = i / C, c = i % C;
            if (n >= N) return;
            float A = 0, B = 0;
#pragma unroll 4
            for (int k = 0; k < chunks; k++) {
                float2 v = of.channel[((size_t)n * chunks + k) * C + c];
                A += v.x, B += v.y;
            }
            store(of.dscale.data + (size_t)n * of.dscale.pitch + c, of.weight[c] * B + of.bias[c] * A);
            store(of.dshift.data + (size_t)n * of.dshift.pitch + c, A);
            return;
        }
        block -= blocks;
    }

    float4* group = (float4*)dynamic_shared();  // mean, 1 / sd, c1, c2
    Tile t = tile_of(C);
    Chunk chunk = chunk_of(block, of);
    int lane = threadIdx.x % WARP;
    for (int g = threadIdx.x / WARP; g < G; g += blockDim.x / WARP) {
        const float2* part = of.partial + ((size_t)chunk.n * G + g) * chunks;
        float one = 0, two = 0;
#pragma unroll 1
        for (int k = lane; k < chunks; k += WARP) one += part[k].x, two += part[k].y;
        one = warp_sum(one), two = warp_sum(two);
        if (lane == 0) {
            float r = of.rsd[chunk.n * G + g], each = 1 / ((float)P * size);
            group[g] = make_float4(of.mean[chunk.n * G + g], r, one * each, two * each * (r * r));
        }
    }
    __syncthreads();

    const Real* dys = of.dy + (size_t)chunk.n * P * C;
    const Real* xs = of.x + (size_t)chunk.n * P * C;
    Real* out = of.dx + (size_t)chunk.n * P * C;
    for (int c = t.column * V; t.row < t.R && c < C; c += t.L * V) {
        float m[V], a[V], b[V], c1[V], c2[V];
        coefficients(a, b, of, chunk.n, c);
        for_groups(c, size, [&](int j, int g) {
            float4 v = group[g];
            m[j] = v.x, a[j] *= v.y, c1[j] = v.z, c2[j] = v.w;
        });
        for (int p = chunk.first + t.row; p < chunk.last; p += PAIRS * t.R) {
            float d[PAIRS][V], u[PAIRS][V];
#pragma unroll
            for (int i = 0; i < PAIRS; i++)
                if (p + i * t.R < chunk.last) {
                    load_pack(dys + (p + i * t.R) * C + c, d[i]);
                    load_pack(xs + (p + i * t.R) * C + c, u[i]);
                }
#pragma unroll
            for (int i = 0; i < PAIRS; i++)
                if (p + i * t.R < chunk.last) {
#pragma unroll
                    for (int j = 0; j < V; j++) {
                        float from = u[i][j] - m[j], dz = d[i][j] * slope(from * a[j] + b[j]);
                        d[i][j] = a[j] * dz - c1[j] - c2[j] * from;
                    }
                    store_pack(out + (p + i * t.R) * C + c, d[i]);
                }
        }
    }
}
