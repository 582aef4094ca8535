// Convolution in NHWC with HWIO weights as an implicit matrix product, and its gradients, by the tiles of product.cuh.
//
//   conv2d          y[n,h,w,o] = b[o] + sum_{i,j,c} x[n, s h + i - p, s w + j - p, c] W[i,j,c,o]
//                   A = windows of x, B = W                     M = N H' W',       N = out, K = kh kw in
//   conv2d_dx       dx[n,h,w,c] = sum_{i,j,o} dy[n, (h + p - i) / s, (w + p - j) / s, o] W[i,j,c,o], if s divides both
//                   A = windows of dy, B = each tap's W^T       M = N H W / s^2,   N = in,  K = taps of a residue * out
//   conv2d_dweight  dW[i,j,c,o] = sum_{n,h,w} x[n, s h + i - p, s w + j - p, c] dy[n,h,w,o],   db[o] = sum dy
//                   A = (windows of x)^T, B = dy                M = kh kw in,      N = out, K = N H' W'
//
// Implicit: the matrix of windows is never written. Its element (pixel, tap and channel) is a value of the image, or a
// zero where the window hangs over the edge, and cp.async takes it from there. A pixel and a tap each are worked out as
// a Place, and adding two Places gives the address.
//
// A stride s in conv2d_dx: to pixels with h mod s = a only the taps i = a + p (mod s) bring a gradient. So each pair of
// residues (a, b), blockIdx.z, is a product of stride 1 of its own with some of the taps; no zero is multiplied.
//
// A block takes one tile; in conv2d_dweight, of one part of the pixels (gridDim.y parts, added by add_partials). dW and
// db are float32 whatever Real is, and db the sums of B's columns, taken as it passes by. Operations 2 N H' W' kh kw in
// out each, bytes at best those of x, W and y: a 3x3 from 128 to 128 channels does 576 operations for each byte of x
// and y in bfloat16, so the matrix rate is its floor.
#include <product.cuh>

// x (images, height, width, C_in), y (images, out_height, out_width, C_out), W (kh, kw, C_in, C_out); padding: before.
struct Convolution {
    int images, height, width, C_in, out_height, out_width, C_out, kh, kw, stride, padding;
};

// Quotient and remainder of 0 <= n < 2^31 by a d > 0 that many n are divided by. With inverse = floor((2^32 - 1) / d),
// n inverse / 2^32 falls short of n / d by less than 1: the quotient is right, or one too small.
struct Divisor {
    int d;
    unsigned inverse;

    __device__ __forceinline__ Divisor(int d) : d(d), inverse(d ? 0xffffffffu / d : 0) {
    }
    __device__ __forceinline__ int divide(int n, int& remainder) const {
        int q = (int)__umulhi((unsigned)n, inverse), r = n - q * d;
        bool more = r >= d;
        remainder = more ? r - d : r;
        return more ? q + 1 : q;
    }
};

// One axis of a convolution: position h sees, by tap i < taps, element stride h + origin + direction i of `size`.
struct Axis {
    int positions, taps, size, stride, origin, direction;
};
__device__ __forceinline__ Axis rows_seen(const Convolution& of) {
    return {of.out_height, of.kh, of.height, of.stride, -of.padding, 1};
}
__device__ __forceinline__ Axis columns_seen(const Convolution& of) {
    return {of.out_width, of.kw, of.width, of.stride, -of.padding, 1};
}

// What pixel and tap owe to an address: row, column, offset.
struct Place {
    int h, w, offset;
};
constexpr int OUTSIDE = 1 << 28;  // a row that is outside whatever is added

// The matrix of windows, a row a pixel, (tap, channel) along it. ALONG_K: k runs along its rows; else m does.
template <bool K_ALONG_ROWS>
struct Windows {
    static constexpr bool ALONG_K = K_ALONG_ROWS;
    typedef ::Place Place;
    const Real* data;
    int images, channels;
    Axis v, u;  // vertical, horizontal
    Divisor by_image, by_row, by_channels, by_tap_row;

    __device__ __forceinline__ Windows(const Real* data, int images, int channels, Axis v, Axis u)
        : data(data), images(images), channels(channels), v(v), u(u), by_image(v.positions * u.positions),
          by_row(u.positions), by_channels(channels), by_tap_row(u.taps) {
    }
    __device__ __forceinline__ Place pixel(int index) const {
        int h, w, n = by_image.divide(index, h);
        h = by_row.divide(h, w);
        h = v.stride * h + v.origin, w = u.stride * w + u.origin;
        int offset = ((n * v.size + h) * u.size + w) * channels;
        return {n < images ? h : -4 * OUTSIDE, w, offset};
    }
    __device__ __forceinline__ Place tap(int index) const {
        int c, j, i = by_channels.divide(index, c);
        i = by_tap_row.divide(i, j);
        int h = v.direction * i, w = u.direction * j;
        return {i < v.taps ? h : OUTSIDE, w, (h * u.size + w) * channels + c};
    }
    __device__ __forceinline__ Place outer(int index) const {
        return ALONG_K ? pixel(index) : tap(index);
    }
    __device__ __forceinline__ Place k(int index) const {
        return ALONG_K ? tap(index) : pixel(index);
    }
    __device__ __forceinline__ bool at(Place a, Place b, int& index) const {
        index = a.offset + b.offset;
        return (unsigned)(a.h + b.h) < (unsigned)v.size && (unsigned)(a.w + b.w) < (unsigned)u.size;
    }
};

// W for conv2d_dx: k is the tap and output channel, over the taps i0 + stride i', j0 + stride j'; n the input channel.
struct Taps {
    static constexpr bool ALONG_K = true;
    typedef int Place;
    const Real* data;
    int in, out, kw, i0, j0, stride, taps;
    Divisor by_channels, by_tap_row;

    __device__ __forceinline__ Place outer(int c) const {
        return c < in ? c * out : -1;
    }
    __device__ __forceinline__ Place k(int index) const {
        int o, j, i = by_channels.divide(index, o);
        i = by_tap_row.divide(i, j);
        return i < taps ? ((i0 + stride * i) * kw + j0 + stride * j) * in * out + o : -1;
    }
    __device__ __forceinline__ bool at(Place a, Place b, int& index) const {
        index = a + b;
        return (a | b) >= 0;
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    conv2d(const Real* x, const Real* weight, const float* bias, Real* y, PARAM Convolution of) {
    int out = of.C_out, pixels = of.images * of.out_height * of.out_width, terms = of.kh * of.kw * of.C_in;
    int m = corner(out).m, n = corner(out).n;
    Windows<true> a(x, of.images, of.C_in, rows_seen(of), columns_seen(of));
    Matrix<false> b{weight, terms, out, out};
    auto sums = product<IN_PACKS, OUT_PACKS>(a, b, m, n, 0, terms);
    finish(sums, m, n, [=](int pixel, int o, float (&v)[P]) {
        if (pixel >= pixels) return;
#pragma unroll
        for (int i = 0; i < P; i++) v[i] += o + i < out ? bias[o + i] : 0;
        store_row<OUT_PACKS>(y + (long long)pixel * out, o, out, v);
    });
}

// For residue a of an axis: its positions h' (h = a + stride h'), and its taps i' (i = first + stride i'), which see
// (h + p - i) / stride = h' + origin - i'.
struct Residue {
    int a, first;
    Axis axis;

    __device__ __forceinline__ Residue(int a, int size, int out_size, int taps, int stride, int padding)
        : a(a), first((a + padding) % stride) {
        int positions = (size - a + stride - 1) / stride;
        axis = {positions, (taps - first + stride - 1) / stride, out_size, 1, (a + padding - first) / stride, -1};
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    conv2d_dx(const Real* dy, const Real* weight, Real* dx, PARAM Convolution of) {
    int in = of.C_in, height = of.height, width = of.width, stride = of.stride;
    Residue v((int)blockIdx.z / stride, height, of.out_height, of.kh, stride, of.padding);
    Residue u((int)blockIdx.z % stride, width, of.out_width, of.kw, stride, of.padding);
    int m = corner(in).m, n = corner(in).n, pixels = of.images * v.axis.positions * u.axis.positions;
    if (m >= pixels) return;
    int terms = v.axis.taps * u.axis.taps * of.C_out;
    Windows<true> a(dy, of.images, of.C_out, v.axis, u.axis);
    Taps b{weight, in, of.C_out, of.kw, v.first, u.first, stride, v.axis.taps, a.by_channels, a.by_tap_row};
    auto sums = product<OUT_PACKS, OUT_PACKS>(a, b, m, n, 0, terms);
    Divisor by_image = a.by_image, by_row = a.by_row;
    finish(sums, m, n, [=](int pixel, int c, float (&value)[P]) {
        if (pixel >= pixels) return;
        int h, w, image = by_image.divide(pixel, h);
        h = by_row.divide(h, w);
        int row = (image * height + v.a + stride * h) * width + u.a + stride * w;
        store_row<IN_PACKS>(dx + (long long)row * in, c, in, value);
    });
}

// Part blockIdx.y of the pixels, into a dW and db of its own.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    conv2d_dweight(const Real* x, const Real* dy, float* dweight, float* dbias, PARAM Convolution of,
                   PARAM Split split) {
    int out = of.C_out, pixels = of.images * of.out_height * of.out_width, rows = of.kh * of.kw * of.C_in;
    int m = corner(out).m, n = corner(out).n;
    int first = blockIdx.y * split.each, last = min(first + split.each, pixels);
    long long part = (long long)blockIdx.y * split.size;
    Windows<false> a(x, of.images, of.C_in, rows_seen(of), columns_seen(of));
    Matrix<false> b{dy, pixels, out, out};
    auto sums = product<IN_PACKS, OUT_PACKS>(a, b, m, n, first, last, m == 0);
    if (m == 0) {
        sums.write_columns([=](int o, float sum) {
            if (n + o < out) dbias[part + n + o] = sum;
        });
    }
    finish(sums, m, n, [=](int row, int o, float (&v)[P]) {
        if (row < rows) store_row<OUT_PACKS>(dweight + part + (long long)row * out, o, out, v);
    });
}

// A thread takes one value.
extern "C" __global__ void __launch_bounds__(256)
    add_partials(const float* partials, float* dweight, float* dbias, int parts, int size, int out) {
    add_parts(partials, dweight, dbias, parts, size, out);
}
