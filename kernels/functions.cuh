// Functions of one number with all their digits, for numbers that are few or that are differences of others.
#pragma once
#include <device.cuh>

// 1 / (1 + exp(-x)): e = exp(-|x|) cannot overflow, and small values keep their digits.
__device__ __forceinline__ float sigmoid_of(float x) {
    float e = expf(-fabsf(x));
    return (x > 0 ? 1 : e) / (1 + e);
}
__device__ __forceinline__ double sigmoid_of(double x) {
    double e = exp(-fabs(x));
    return (x > 0 ? 1 : e) / (1 + e);
}

// log(1 + exp(x)).
__device__ __forceinline__ float softplus_of(float x) {
    float rest = log1pf(expf(-fabsf(x)));
    return x > 0 ? x + rest : rest;
}
__device__ __forceinline__ double softplus_of(double x) {
    double rest = log1p(exp(-fabs(x)));
    return x > 0 ? x + rest : rest;
}

// e^d - 1 - d, by its series within 1/2 of 0, where the difference would cancel.
__device__ __forceinline__ float exp_beyond_linear(float d) {
    if (fabsf(d) >= 0.5f) return expm1f(d) - d;
    float series = 1;
#pragma unroll
    for (int k = 10; k > 2; k--) series = 1 + d * series / k;
    return 0.5f * d * d * series;
}
