// Step 2 of the 3x3 convolution: tiles in shared memory, and 8 x 8 sums a thread.
//
// Changed: the convolution is a matrix product (steps.cuh). A block owns 128 pixels x 128 channels, and walks along k in
// steps of 16: 256 threads bring 16 columns of A and 16 rows of W to shared memory, as float32; then each takes 8 values of
// A and 8 of W from there for 64 FMA.
//
// Gain: a value that comes from the caches is used 128 times, one from shared memory 8 times.
//   from L2       1024 tiles x 1152 x (128 + 128) x 2 bytes = 0.60 GB, where the loads of step 1 took 58 GB from L1
//   from shared   4 loads of 16 bytes for 64 FMA, where step 1 has 128 loads: for one k a block's 8 warps move 48 x 128
//                 bytes (a load of A has two addresses a warp, one of W 16) while its FMA take 128 cycles
// So FMA are the floor: 19.3 G of them, 128 a cycle on each of 132 multiprocessors at 1.75 GHz: 0.65 ms, an eighth of step 1.
// (Predicted; not yet run on a GPU.)
//
// bench conv2d: grid = (ceil(N * H * W, 128), ceil(C_out, 128)), block = 256
#include "steps.cuh"

constexpr int M = 128, N = 128, K = 16;

// 8 values; zeros from null.
__device__ __forceinline__ void load_8(const Real* from, float (&v)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i += PACK<Real>) {
        float u[PACK<Real>] = {};
        if (from) load_pack(from + i, u);
#pragma unroll
        for (int e = 0; e < PACK<Real>; e++) v[i + e] = u[e];
    }
}

// The thread's 8 values of a row of 128: 4 from 4 i on, 4 from 64 + 4 i on, so that neighbours read neighbouring banks.
__device__ __forceinline__ void load_8(const float4* row, int i, float (&v)[8]) {
    float4 u = row[i], w = row[16 + i];
    v[0] = u.x, v[1] = u.y, v[2] = u.z, v[3] = u.w, v[4] = w.x, v[5] = w.y, v[6] = w.z, v[7] = w.w;
}
__device__ __forceinline__ int place(int i, int e) {
    return 4 * i + e % 4 + e / 4 * 64;
}

extern "C" __global__ void __launch_bounds__(256, 2) conv2d(
    const Real* x, const Real* weight, const float* bias, Real* y, int images, int height, int width, int in, int out
) {
    __shared__ float4 a[K][M / 4], b[K][N / 4];
    int m = blockIdx.x * M, n = blockIdx.y * N, pixels = images * height * width, terms = 9 * in;
    int t = threadIdx.x, down = t / 16, across = t % 16;
    int row = t % M, a_k = t / M * 8;  // of A a thread brings 8 neighbours in k: a warp stores 32 neighbours in m
    Window window(x, m + row, images, height, width, in);
    float d[8][8] = {};
    for (int k = 0; k < terms; k += K) {
        float v[8], u[8];
        load_8(window.at(k + a_k), v);
        load_8(weights_at(weight, k + down, n + 8 * across, in, out), u);
        __syncthreads();  // all are done with the step before
#pragma unroll
        for (int e = 0; e < 8; e++) ((float*)a[a_k + e])[row] = v[e];
        b[down][2 * across] = make_float4(u[0], u[1], u[2], u[3]);
        b[down][2 * across + 1] = make_float4(u[4], u[5], u[6], u[7]);
        __syncthreads();
#pragma unroll
        for (int e = 0; e < K; e++) {
            load_8(a[e], down, v);
            load_8(b[e], across, u);
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) d[i][j] += v[i] * u[j];
        }
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
        int o = n + place(across, j);
        if (o >= out) continue;
        float value = bias[o];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int pixel = m + place(down, i);
            if (pixel < pixels) store(y + (long long)pixel * out + o, d[i][j] + value);
        }
    }
}
