// Step 3 of the 3x3 convolution: the products on tensor cores. bfloat16.
//
// Changed: the tiles stay bfloat16 in shared memory (128 x 32 of A, 32 x 128 of W), and a warp multiplies its 64 x 32 sums
// with mma.sync m16n8k16, whose operands ldmatrix brings in the layout that it wants (W transposed on its way). Rows are 16
// bytes longer than their values: 8 rows of a matrix, 80 or 272 bytes apart, lie in 8 different groups of four banks, so
// ldmatrix meets no conflict.
//
// Gain: 2,048 FMA an instruction instead of 32.
//   instructions    a warp and 16 of k: 16 mma and 6 ldmatrix for 32,768 FMA, where step 2 has 1,024 FMA and 64 loads
//   matrix rate     mma.sync reaches 50 to 60 % of what an H100 does with wgmma, 798 TFLOP/s: 38.7 GFLOP in 81 to 97 us
//   waiting         nothing is multiplied while the next tile comes: 1024 tiles, two a multiprocessor, are 4 rounds of 36
//                   steps; with 0.6 us from L2 to shared memory (assumed) they add up to 86 us, of which the other block
//                   hides a part
// 0.1 to 0.2 ms, four times faster than step 2, half of it spent waiting. (Predicted; not yet run on a GPU.)
//
// bench conv2d: grid = (ceil(N * H * W, 128), ceil(C_out, 128)), block = 256
#include "steps.cuh"

constexpr int M = 128, N = 128, K = 32, PITCH_A = K + 8, PITCH_B = N + 8;

// 16 bytes; zeros from null.
__device__ __forceinline__ uint4 load_16(const bf16* from) {
    return from ? *(const uint4*)from : make_uint4(0, 0, 0, 0);
}

extern "C" __global__ void __launch_bounds__(256, 2) conv2d(
    const bf16* x, const bf16* weight, const float* bias, bf16* y, int images, int height, int width, int in, int out
) {
    __shared__ uint4 a_packs[M * PITCH_A / 8], b_packs[K * PITCH_B / 8];
    bf16 *a = (bf16*)a_packs, *b = (bf16*)b_packs;
    int m = blockIdx.x * M, n = blockIdx.y * N, terms = 9 * in;
    int t = threadIdx.x, warp = t / WARP, warp_m = warp / 4 * 64, warp_n = warp % 4 * 32;
    // A thread brings 8 neighbours in k of two rows of A, and 8 neighbours in o of two rows of W.
    int a_row = t / 4, a_k = t % 4 * 8, b_row = t / 16, b_n = t % 16 * 8;
    Window first(x, m + a_row, images, height, width, in), second(x, m + a_row + 64, images, height, width, in);
    Sums sums;
    for (int k = 0; k < terms; k += K) {
        uint4 of_a[2] = {load_16(first.at(k + a_k)), load_16(second.at(k + a_k))}, of_b[2];
#pragma unroll
        for (int i = 0; i < 2; i++) of_b[i] = load_16(weights_at(weight, k + b_row + 16 * i, n + b_n, in, out));
        __syncthreads();  // all are done with the step before
#pragma unroll
        for (int i = 0; i < 2; i++) {
            *(uint4*)(a + (a_row + 64 * i) * PITCH_A + a_k) = of_a[i];
            *(uint4*)(b + (b_row + 16 * i) * PITCH_B + b_n) = of_b[i];
        }
        __syncthreads();
#pragma unroll
        for (int e = 0; e < K; e += 16) sums.add(a + warp_m * PITCH_A + e, PITCH_A, b + e * PITCH_B + warp_n, PITCH_B);
    }
    sums.write(y, bias, m + warp_m, n + warp_n, images * height * width, out);
}
