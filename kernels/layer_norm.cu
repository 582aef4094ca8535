// Layer norm: each row of C values to mean 0 and variance 1, then a scale and a shift a channel.
//
//   xhat = (x - mean) / sd,  sd^2 = mean((x - mean)^2) + epsilon,  y = w xhat + b
//   db = sum dy,  dw = sum dy xhat over rows,   dx = (dxhat - mean(dxhat) - xhat mean(dxhat xhat)) / sd,  dxhat = w dy
//
// Forward: a warp a row, which it reads three times (mean, variance, y), from L1 after the first. Backward: a block takes
// `each` rows; a warp a row for the two means, then a thread a channel (see Tile) for dx and the block's dw and db; a
// second launch adds the blocks in a fixed order.
// Bytes, n values: forward 2 n sizeof(Real), backward 3 n sizeof(Real) and 8 C a block. Floor: bytes over the copy bandwidth.
#include <rows.cuh>

extern "C" __global__ void __launch_bounds__(256)
    layer_norm(const Real* x, const float* weight, const float* bias, Real* y, float* mean, float* rsd, float epsilon,
               int rows, int C) {
    int row = blockIdx.x * (MOST / WARP) + (int)threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= rows) return;  // a whole warp
    x += (size_t)row * C, y += (size_t)row * C;

    float start = load(x), sum = 0, squares = 0;  // shifted, so that a large mean costs nothing
    for (int c = lane * V; c < C; c += WARP * V) {
        float v[V];
        load_pack(x + c, v);
#pragma unroll
        for (int j = 0; j < V; j++) sum += v[j] - start;
    }
    float m = start + warp_sum(sum) / C;
    for (int c = lane * V; c < C; c += WARP * V) {
        float v[V];
        load_pack(x + c, v);
#pragma unroll
        for (int j = 0; j < V; j++) squares += (v[j] - m) * (v[j] - m);
    }
    float r = rsqrtf(warp_sum(squares) / C + epsilon);
    if (lane == 0) mean[row] = m, rsd[row] = r;
    for (int c = lane * V; c < C; c += WARP * V) {
        float v[V], w[V], b[V];
        load_pack(x + c, v);
        load_floats(weight + c, w);
        load_floats(bias + c, b);
#pragma unroll
        for (int j = 0; j < V; j++) v[j] = (v[j] - m) * r * w[j] + b[j];
        store_pack(y + c, v);
    }
}

// channel (blocks, C): sum dy and sum dy xhat over a block's rows.
// Shared: mean, 1 / sd, mean(dxhat), mean(dxhat xhat) of each row (`each` float4), then scratch of add_rows.
extern "C" __global__ void __launch_bounds__(256)
    layer_norm_backward(const Real* dy, const Real* x, const float* mean, const float* rsd, const float* weight, Real* dx,
                        float2* channel, int rows, int C, int each) {
    float4* of = (float4*)dynamic_shared();
    float* scratch = (float*)(of + each);
    int begin = blockIdx.x * each, count = min(each, rows - begin), lane = threadIdx.x % WARP;
    dy += (size_t)begin * C, x += (size_t)begin * C, dx += (size_t)begin * C;

    for (int i = threadIdx.x / WARP; i < count; i += blockDim.x / WARP) {
        float m = mean[begin + i], r = rsd[begin + i], one = 0, two = 0;
        for (int c = lane * V; c < C; c += WARP * V) {
            float d[V], v[V], w[V];
            load_pack(dy + (size_t)i * C + c, d);
            load_pack(x + (size_t)i * C + c, v);
            load_floats(weight + c, w);
#pragma unroll
            for (int j = 0; j < V; j++) {
                float dxhat = d[j] * w[j];
                one += dxhat, two += dxhat * ((v[j] - m) * r);
            }
        }
        one = warp_sum(one), two = warp_sum(two);
        if (lane == 0) of[i] = make_float4(m, r, one / C, two / C);
    }
    __syncthreads();

    Tile t = tile_of(C);
    for (int turn = 0; turn < C; turn += t.L * V) {
        int c = turn + t.column * V;
        float s[2 * V] = {};  // sum dy, sum dy xhat
        if (t.row < t.R && c < C) {
            float w[V];
            load_floats(weight + c, w);
            for (int i = t.row; i < count; i += t.R) {
                float4 f = of[i];
                float d[V], v[V];
                load_pack(dy + (size_t)i * C + c, d);
                load_pack(x + (size_t)i * C + c, v);
#pragma unroll
                for (int j = 0; j < V; j++) {
                    float xhat = (v[j] - f.x) * f.y;
                    s[j] += d[j], s[V + j] += d[j] * xhat;
                    d[j] = (d[j] * w[j] - f.z - xhat * f.w) * f.y;
                }
                store_pack(dx + (size_t)i * C + c, d);
            }
        }
        add_rows(s, t, scratch);
        if (t.row == 0 && c < C) {
#pragma unroll
            for (int j = 0; j < V; j++) channel[(size_t)blockIdx.x * C + c + j] = make_float2(s[j], s[V + j]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256)
    layer_norm_totals(const float2* channel, float* dbias, float* dweight, int count, int C) {
    auto factor = [](int, int) { return 1.0f; };
    add_partials(channel, count, C, blockIdx.x, factor, dbias, dweight, (float2*)dynamic_shared());
}
