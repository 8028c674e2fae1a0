/* Products with the weights that survive pruning, and what lies between them in a convolutional network, with the
   batch innermost. Plain C with the vector types of gcc and clang; lanes.h holds the code, compiled here for two
   number types and for every instruction set that the compiler knows: the best one that this CPU has is taken. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum { SET, ADD, RELU, GATE }; /* how a product ends: y = a, y += a, y = relu(a), y = a where gate > 0 */

/* One layer of one replicate. Strides count elements; what is 16 lanes apart are neighbouring blocks or pixels. */
typedef struct {
    const int32_t *row;   /* [outputs + 1] where the weights of each output begin */
    const int32_t *off;   /* [weights] where its input lies, from the pixel's first */
    const int32_t *which; /* [weights] which value a weight has; NULL: in order */
    const void *value, *bias, *x, *gate;
    void *y; /* what is computed; for `gradient` the loss's gradient there */
    void *dvalue, *dbias, *sums;
    int64_t xb, xh, xw, yc, yb, yh, yw;
    int32_t outputs, outer, height, width, end;
} product;

/* Images: as examples (x, dense) and in lanes (y). */
typedef struct {
    void *x, *y;
    int64_t yc, yb, yh;
    int32_t batch, blocks, channels, height, width;
} image;

/* BatchNorm of images x; x, y and d lie alike. */
typedef struct {
    const void *x, *weight, *bias;
    void *y, *d, *mean, *variance, *dweight, *dbias;
    int64_t b, c, h;
    double epsilon;
    int32_t batch, blocks, channels, height, width, relu;
} norm;

/* A max pool from x to y, whose sides are height and width. */
typedef struct {
    const void *x, *dy;
    void *y, *dx;
    int64_t xb, xc, xh, yb, yc, yh;
    int32_t blocks, channels, height, width, size, relu;
} window;

#define PASTE(a, b, c) a##_##b##_##c
#define NAME(a, b, c) PASTE(a, b, c)

#define BUILD plain
#define BYTES 16
#include "lanes.h"

#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define BUILD avx2
#define BYTES 32
#include "lanes.h"
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,fma")
#endif
#define BUILD avx512
#define BYTES 64
#include "lanes.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

/* -- what Python calls --------------------------------------------------------------------------------------- */

typedef void kernel();
#define KERNELS(number, build) \
    {(kernel *)PASTE(forward, number, build), (kernel *)PASTE(gradient, number, build), \
     (kernel *)PASTE(load, number, build), (kernel *)PASTE(store, number, build), \
     (kernel *)PASTE(moments, number, build), (kernel *)PASTE(normalise, number, build), \
     (kernel *)PASTE(denormalise, number, build), (kernel *)PASTE(pool, number, build), \
     (kernel *)PASTE(unpool, number, build)}
static const struct {
    const char *name;
    kernel *kernels[2][9];
} builds[] = {
    {"plain", {KERNELS(float, plain), KERNELS(double, plain)}},
#if defined(__x86_64__)
    {"avx2", {KERNELS(float, avx2), KERNELS(double, avx2)}},
    {"avx512", {KERNELS(float, avx512), KERNELS(double, avx512)}},
#endif
};

/* The name of a build, or NULL where this CPU cannot run it or there are no more. */
EXPORT const char *build(int i)
{
#if defined(__x86_64__)
    const int most = !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ? 0
                     : !__builtin_cpu_supports("avx512dq")                             ? 1
                                                                                       : 2;
#else
    const int most = 0;
#endif
    return i <= most ? builds[i].name : NULL;
}

/* Run a kernel on `count` layers or images; `wide`: in double precision. */
EXPORT void run(int build, int kernel, int wide, const void *what, int count)
{
    builds[build].kernels[wide][kernel](what, count);
}
