// What the steps share: the convolution as a matrix product, and the sums of a warp on tensor cores.
//
//   y[pixel, o] = b[o] + sum_k A[pixel, k] W[k, o],   k = (3 i + j) in + c,   A[pixel, k] = x[h + i - 1, w + j - 1, c]
//
// so M = N H W, N = out, K = 9 in. W lies in memory as this matrix does; A, nine times x, is never written: `Window` says
// where its values are. `in` and `out` are multiples of 8, so that 8 neighbours in k or o are neighbours in memory.
#pragma once
#include <device.cuh>

// A row of A: what the filter sees at one pixel.
struct Window {
    const Real* centre;
    int h, w, height, width, in;

    __device__ __forceinline__ Window(const Real* x, int pixel, int images, int height, int width, int in)
        : centre(x + (long long)pixel * in), h(pixel / width % height), w(pixel % width), height(height), width(width),
          in(in) {
        if (pixel >= images * height * width) h = -4;  // outside, whatever tap is added
    }
    // Where A[pixel, k .. k + 7] stand; null for zeros: the padding, past the last pixel, past the last k.
    __device__ __forceinline__ const Real* at(int k) const {
        int tap = k / in, i = tap / 3 - 1, j = tap % 3 - 1;
        bool exists = tap < 9 && (unsigned)(h + i) < (unsigned)height && (unsigned)(w + j) < (unsigned)width;
        return exists ? centre + (i * width + j) * in + (k - tap * in) : nullptr;
    }
};

// W[k, o .. o + 7]; null for zeros past an end.
__device__ __forceinline__ const Real* weights_at(const Real* weight, int k, int o, int in, int out) {
    return k < 9 * in && o < out ? weight + k * out + o : nullptr;
}

#ifdef BF16

// 64 x 32 sums of a warp, as 4 x 4 products of 16 x 8. A tile of A (rows of m, `pitch_a` apart) and one of W (rows of k) lie
// in shared memory.
struct Sums {
    float d[4][4][4] = {};

    // One 16 of k. a, b: the corners of the warp's parts.
    __device__ __forceinline__ void add(const bf16* a, int pitch_a, const bf16* b, int pitch_b) {
        int lane = threadIdx.x % WARP, row = lane % 16, half = lane / 16 * 8;
        unsigned of_a[4][4], of_b[4][2];
#pragma unroll
        for (int i = 0; i < 4; i++) ldmatrix_x4(of_a[i], a + (16 * i + row) * pitch_a + half);
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            unsigned r[4];
            ldmatrix_x4_transposed(r, b + row * pitch_b + 8 * j + half);
            of_b[j][0] = r[0], of_b[j][1] = r[1], of_b[j + 1][0] = r[2], of_b[j + 1][1] = r[3];
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) mma_16816(d[i][j], of_a[i], of_b[j]);
    }

    // y[m .. m + 63, n .. n + 31] = the sums + bias, two neighbours a store.
    __device__ __forceinline__ void write(bf16* y, const float* bias, int m, int n, int pixels, int out) const {
        int lane = threadIdx.x % WARP;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int o = n + 8 * j + lane % 4 * 2;
            if (o >= out) return;
            float b0 = bias[o], b1 = bias[o + 1];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                int pixel = m + 8 * i + lane / 4;
                const float* v = d[i / 2][j] + i % 2 * 2;
                if (pixel < pixels) *(unsigned*)(y + (long long)pixel * out + o) = pack_bf16(v[0] + b0, v[1] + b1);
            }
        }
    }
};

#endif
