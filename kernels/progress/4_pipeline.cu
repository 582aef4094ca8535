// Step 4 of the 3x3 convolution: a pipeline. bfloat16.
//
// Changed: shared memory holds a ring of four stages, a tile of A and one of W each, filled by cp.async: past the registers,
// and without waiting. While one stage is multiplied three are on their way. One barrier a step where step 3 has two: behind
// it this step's stage is there for all, and all are done with the stage of the step before, which is filled anew.
//
// Gain: waiting is hidden as long as a tile comes within the time of three.
//   a step      128 x 128 x 32: 1.05 MFLOP, so 0.29 us at 60 % of a multiprocessor's share (6.0 TFLOP/s), two blocks 0.58 us
//   in flight   3 steps x 2 blocks x 16 KB = 96 KB a multiprocessor for 1.7 us: 56 KB/us, against an assumed latency of
//               0.6 us; 16 KB in 0.29 us, 7.5 TB/s for 132 multiprocessors, are what L2 must give, and perhaps cannot
//   memory      75,776 bytes of shared memory a block (16 bytes of each row unused), so two blocks a multiprocessor
// 81 to 97 us, the rate of mma.sync, if L2 gives that: twice as fast as step 3. (Predicted; not yet run on a GPU.)
//
// bench conv2d: grid = (ceil(N * H * W, 128), ceil(C_out, 128)), block = 256, shared = 4 * (128 * 40 + 32 * 136) * 2
#include "steps.cuh"

constexpr int M = 128, N = 128, K = 32, PITCH_A = K + 8, PITCH_B = N + 8, STAGES = 4;
constexpr int OF_A = M * PITCH_A, STAGE = OF_A + K * PITCH_B;

extern "C" __global__ void __launch_bounds__(256, 2) conv2d(
    const bf16* x, const bf16* weight, const float* bias, bf16* y, int images, int height, int width, int in, int out
) {
    bf16* ring = (bf16*)dynamic_shared();
    int m = blockIdx.x * M, n = blockIdx.y * N, steps = (9 * in + K - 1) / K;
    int t = threadIdx.x, warp = t / WARP, warp_m = warp / 4 * 64, warp_n = warp % 4 * 32;
    int a_row = t / 4, a_k = t % 4 * 8, b_row = t / 16, b_n = t % 16 * 8;
    Window first(x, m + a_row, images, height, width, in), second(x, m + a_row + 64, images, height, width, in);

    auto copy = [&](bf16* to, const bf16* from) { cp_async_16(to, from ? from : x, from); };
    auto fill = [&](int step) {
        bf16 *a = ring + step % STAGES * STAGE, *b = a + OF_A;
        int k = step * K;
        if (step < steps) {
            copy(a + a_row * PITCH_A + a_k, first.at(k + a_k));
            copy(a + (a_row + 64) * PITCH_A + a_k, second.at(k + a_k));
#pragma unroll
            for (int i = 0; i < 2; i++)
                copy(b + (b_row + 16 * i) * PITCH_B + b_n, weights_at(weight, k + b_row + 16 * i, n + b_n, in, out));
        }
        cp_async_commit();  // of nothing, past the end: a group a step
    };

    Sums sums;
    for (int step = 0; step < STAGES - 1; step++) fill(step);
    for (int step = 0; step < steps; step++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        fill(step + STAGES - 1);
        const bf16 *a = ring + step % STAGES * STAGE, *b = a + OF_A;
#pragma unroll
        for (int e = 0; e < K; e += 16) sums.add(a + warp_m * PITCH_A + e, PITCH_A, b + e * PITCH_B + warp_n, PITCH_B);
    }
    sums.write(y, bias, m + warp_m, n + warp_n, images * height * width, out);
}
