// SiLU, GELU (exact and tanh), ReLU, softplus and exp(x) - 1, forward and backward, elementwise.
//
//   silu       y = x s(x),  s(x) = 1 / (1 + exp(-x))              dy/dx = s (1 + x (1 - s))
//   gelu       y = x Phi(x)                                       dy/dx = Phi(x) + x phi(x)
//   gelu_tanh  y = x (1 + tanh u) / 2,  u = C (x + 0.044715 x^3)  dy/dx = (1 + tanh u) / 2 + x/2 (1 - tanh^2 u) du/dx
//   relu       y = x where x > 0, else 0                          dx = dy where y > 0, else 0
//   softplus   y = log(1 + exp(x))                                dy/dx = s(x)
//   expm1      y = exp(x) - 1                                     dy/dx = exp(x)
//
// A thread takes PACK neighbours (16 bytes); the last thread takes the rest one by one. The last two
// keep all digits of small values: they make noise levels and probabilities.
// Bytes: forward 2 n sizeof(Real), backward 3 n sizeof(Real). Floor: bytes over the copy bandwidth.
#include <functions.cuh>

constexpr int N = PACK<Real>;

__device__ __forceinline__ float silu_of(float x) {
    return x * logistic(x);
}
__device__ __forceinline__ float silu_slope(float x) {
    float s = logistic(x);
    return s * (1 + x * (1 - s));
}

__device__ __forceinline__ float gelu_of(float x) {
    return x * normcdff(x);
}
__device__ __forceinline__ float gelu_slope(float x) {
    return normcdff(x) + x * 0.3989422804f * __expf(-0.5f * x * x);
}

constexpr float C = 0.7978845608f;  // sqrt(2 / pi)

__device__ __forceinline__ float gelu_tanh_of(float x) {
    return 0.5f * x * (1 + tanhf(C * (x + 0.044715f * x * x * x)));
}
__device__ __forceinline__ float gelu_tanh_slope(float x) {
    float tanh = tanhf(C * (x + 0.044715f * x * x * x));
    return 0.5f * (1 + tanh) + 0.5f * x * (1 - tanh * tanh) * C * (1 + 3 * 0.044715f * x * x);
}

// NaN stays NaN, and no gradient is multiplied by 0.
__device__ __forceinline__ float relu_of(float x) {
    return x <= 0 ? 0 : x;
}

template <class F>
__device__ __forceinline__ void map(F f, const Real* x, Real* y, int n) {
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (i + N <= n) {
        float v[N];
        load_pack(x + i, v);
#pragma unroll
        for (int j = 0; j < N; j++) v[j] = f(v[j]);
        store_pack(y + i, v);
    } else {
        for (; i < n; i++) store(y + i, f(load(x + i)));
    }
}

// dx = f(dy, x).
template <class F>
__device__ __forceinline__ void map(F f, const Real* dy, const Real* x, Real* dx, int n) {
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (i + N <= n) {
        float d[N], v[N];
        load_pack(dy + i, d);
        load_pack(x + i, v);
#pragma unroll
        for (int j = 0; j < N; j++) d[j] = f(d[j], v[j]);
        store_pack(dx + i, d);
    } else {
        for (; i < n; i++) store(dx + i, f(load(dy + i), load(x + i)));
    }
}

#define TIMES(slope) [](float dy, float x) { return dy * slope(x); }

extern "C" __global__ void __launch_bounds__(256) silu(const Real* x, Real* y, int n) {
    map(silu_of, x, y, n);
}
extern "C" __global__ void __launch_bounds__(256) silu_backward(const Real* dy, const Real* x, Real* dx, int n) {
    map(TIMES(silu_slope), dy, x, dx, n);
}
extern "C" __global__ void __launch_bounds__(256) gelu(const Real* x, Real* y, int n) {
    map(gelu_of, x, y, n);
}
extern "C" __global__ void __launch_bounds__(256) gelu_backward(const Real* dy, const Real* x, Real* dx, int n) {
    map(TIMES(gelu_slope), dy, x, dx, n);
}
extern "C" __global__ void __launch_bounds__(256) gelu_tanh(const Real* x, Real* y, int n) {
    map(gelu_tanh_of, x, y, n);
}
extern "C" __global__ void __launch_bounds__(256) gelu_tanh_backward(const Real* dy, const Real* x, Real* dx, int n) {
    map(TIMES(gelu_tanh_slope), dy, x, dx, n);
}
extern "C" __global__ void __launch_bounds__(256) relu(const Real* x, Real* y, int n) {
    map(relu_of, x, y, n);
}
extern "C" __global__ void __launch_bounds__(256) relu_backward(const Real* dy, const Real* y, Real* dx, int n) {
    map([](float dy, float y) { return y <= 0 ? 0 : dy; }, dy, y, dx, n);
}
extern "C" __global__ void __launch_bounds__(256) softplus(const Real* x, Real* y, int n) {
    map([](float x) { return softplus_of(x); }, x, y, n);
}
extern "C" __global__ void __launch_bounds__(256) softplus_backward(const Real* dy, const Real* x, Real* dx, int n) {
    map([](float dy, float x) { return dy * sigmoid_of(x); }, dy, x, dx, n);
}
// expm1 itself is a function of C's own library.
extern "C" __global__ void __launch_bounds__(256) expm1_of(const Real* x, Real* y, int n) {
    map([](float x) { return expm1f(x); }, x, y, n);
}
extern "C" __global__ void __launch_bounds__(256) expm1_of_backward(const Real* dy, const Real* x, Real* dx, int n) {
    map([](float dy, float x) { return dy * expf(x); }, dy, x, dx, n);
}
