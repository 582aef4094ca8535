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

// What the first two kernels are given, each what it needs. x, y, dy, dx (rows, C); weight, bias (C,); mean and
// rsd = 1 / sd (rows,); channel (blocks, C): sum dy and sum dy xhat over a block's rows, of which it takes `each`.
struct LayerNorm {
    const Real *x, *dy;
    const float *weight, *bias;
    Real *y, *dx;
    float *mean, *rsd;
    float2* channel;
    int rows, C, each;
    float epsilon;
};

extern "C" __global__ void __launch_bounds__(256)
    layer_norm(PARAM LayerNorm of) {
    int C = of.C;
    const float *weight = of.weight, *bias = of.bias;
    int row = blockIdx.x * (MAX_THREADS / WARP) + (int)threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= of.rows) return;  // a whole warp
    const Real* x = of.x + (size_t)row * C;
    Real* y = of.y + (size_t)row * C;

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
    float r = rsqrtf(warp_sum(squares) / C + of.epsilon);
    if (lane == 0) of.mean[row] = m, of.rsd[row] = r;
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

// Shared: mean, 1 / sd, mean(dxhat), mean(dxhat xhat) of each row (`each` float4), then scratch of add_rows.
extern "C" __global__ void __launch_bounds__(256)
    layer_norm_backward(PARAM LayerNorm of) {
    int C = of.C, each = of.each;
    const float* weight = of.weight;
    float4* row = (float4*)dynamic_shared();
    float* scratch = (float*)(row + each);
    int begin = blockIdx.x * each, count = min(each, of.rows - begin), lane = threadIdx.x % WARP;
    const Real *dy = of.dy + (size_t)begin * C, *x = of.x + (size_t)begin * C;
    Real* dx = of.dx + (size_t)begin * C;

    for (int i = threadIdx.x / WARP; i < count; i += blockDim.x / WARP) {
        float m = of.mean[begin + i], r = of.rsd[begin + i], one = 0, two = 0;
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
        if (lane == 0) row[i] = make_float4(m, r, one / C, two / C);
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
                float4 f = row[i];
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
            for (int j = 0; j < V; j++) of.channel[(size_t)blockIdx.x * C + c + j] = make_float2(s[j], s[V + j]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256)
    layer_norm_totals(const float2* channel, float* dbias, float* dweight, int count, int C) {
    auto factor = [](int, int) { return 1.0f; };
    add_partials(channel, count, C, blockIdx.x, factor, dbias, dweight, (float2*)dynamic_shared());
}
