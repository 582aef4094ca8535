// The linear layer on rows: y = x W + b, and its gradients, three products by the tiles of product.cuh.
//
//   linear          y[r, o]  = b[o] + sum_i x[r, i] W[i, o]     A = x,    B = W       M = rows, N = out, K = in
//   linear_dx       dx[r, i] = sum_o dy[r, o] W[i, o]           A = dy,   B = W^T     M = rows, N = in,  K = out
//   linear_dweight  dW[i, o] = sum_r x[r, i] dy[r, o]           A = x^T,  B = dy      M = in,   N = out, K = rows
//                   db[o]    = sum_r dy[r, o]                   the sums of B's columns, taken as it passes by
//
// Nothing is transposed in memory: ldmatrix does it on the way to the tensor cores. The rows of x and dy may lie apart
// (pitch). dW and db are float32 whatever Real is; where the tiles of dW are too few to fill the GPU, the rows are
// split into gridDim.y parts, each with sums of its own, and add_partials adds these in a fixed order.
//
// A block takes one tile. Operations 2 rows in out each; bytes as in product.cuh, and for a split 8 in out a part.
#include <product.cuh>

// Given without PARAM, over which NVRTC 12.2 crashes here.
struct Linear {
    int rows, C_in, C_out;
};

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    linear(PARAM Pitched<const Real> x, const Real* weight, const float* bias, Real* y, Linear sizes) {
    int rows = sizes.rows, in = sizes.C_in, out = sizes.C_out;
    int m = corner(out).m, n = corner(out).n;
    Matrix<true> a{x.data, rows, in, x.pitch};
    Matrix<false> b{weight, in, out, out};
    auto sums = product<IN_PACKS, OUT_PACKS>(a, b, m, n, 0, in);
    finish(sums, m, n, [=](int r, int o, float (&v)[P]) {
        if (r >= rows) return;
#pragma unroll
        for (int i = 0; i < P; i++) v[i] += o + i < out ? bias[o + i] : 0;
        store_row<OUT_PACKS>(y + (long long)r * out, o, out, v);
    });
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    linear_dx(PARAM Pitched<const Real> dy, const Real* weight, Real* dx, Linear sizes) {
    int rows = sizes.rows, in = sizes.C_in, out = sizes.C_out;
    int m = corner(in).m, n = corner(in).n;
    Matrix<true> a{dy.data, rows, out, dy.pitch};
    Matrix<true> b{weight, in, out, out};
    auto sums = product<OUT_PACKS, OUT_PACKS>(a, b, m, n, 0, out);
    finish(sums, m, n, [=](int r, int i, float (&v)[P]) {
        if (r < rows) store_row<IN_PACKS>(dx + (long long)r * in, i, in, v);
    });
}

// Part blockIdx.y of the rows, into a dW and db of its own.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) linear_dweight(
    PARAM Pitched<const Real> x, PARAM Pitched<const Real> dy, float* dweight, float* dbias, Linear sizes,
    PARAM Split split
) {
    int rows = sizes.rows, in = sizes.C_in, out = sizes.C_out;
    int m = corner(out).m, n = corner(out).n;
    int first = blockIdx.y * split.each, last = min(first + split.each, rows);
    long long part = (long long)blockIdx.y * split.size;
    Matrix<false> a{x.data, rows, in, x.pitch};
    Matrix<false> b{dy.data, rows, out, dy.pitch};
    auto sums = product<IN_PACKS, OUT_PACKS>(a, b, m, n, first, last, m == 0);
    if (m == 0) {
        sums.write_columns([=](int o, float sum) {
            if (n + o < out) dbias[part + n + o] = sum;
        });
    }
    finish(sums, m, n, [=](int i, int o, float (&v)[P]) {
        if (i < in) store_row<OUT_PACKS>(dweight + part + (long long)i * out, o, out, v);
    });
}

// A thread takes one value.
extern "C" __global__ void __launch_bounds__(256)
    add_partials(const float* partials, float* dweight, float* dbias, int parts, int size, int out) {
    add_parts(partials, dweight, dbias, parts, size, out);
}
