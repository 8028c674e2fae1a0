/* The kernels, compiled once for each number type and instruction set: sparse.c includes this file for every BUILD,
   and it includes itself for float and for double.

   Examples come in blocks of 16, which lie innermost; a block is PER vectors. Eight vectors, TILE pixels' blocks,
   stay in registers while the surviving weights of an output stream by. A dense layer is a 1x1 convolution whose
   pixels are the blocks of the batch. Every example has a lane to itself and every lane is computed alike: an
   output's bits depend neither on the batch nor on who shares it. */

#ifndef T
#define T float
#define SIZE 4
#define INTEGER int32_t
#define F(name) NAME(name, float, BUILD)
#include "lanes.h"
#undef T
#undef SIZE
#undef INTEGER
#undef F
#define T double
#define SIZE 8
#define INTEGER int64_t
#define F(name) NAME(name, double, BUILD)
#include "lanes.h"
#undef T
#undef SIZE
#undef INTEGER
#undef F
#undef BUILD
#undef BYTES
#else

typedef T F(V) __attribute__((vector_size(BYTES), aligned(BYTES), may_alias));
typedef INTEGER F(I) __attribute__((vector_size(BYTES), aligned(BYTES), may_alias));
#define V F(V)
#define I F(I)
#define LANES (BYTES / SIZE)
#define PER (16 / LANES)
#define TILE (8 / PER)
#define AT(pointer, offset) (*(V *)((T *)(pointer) + (offset)))
#define WHERE(condition, a) ((V)((I)(condition) & (I)(a)))

/* Sum of a vector's lanes, by halves: of four numbers at most from the first cut on. */
typedef T F(H) __attribute__((vector_size(BYTES / 2)));
#if LANES > 2
typedef T F(Q) __attribute__((vector_size(BYTES / 4)));
#endif
INLINE T F(total)(V a)
{
    F(H) half[2];
    memcpy(half, &a, sizeof a);
    half[0] += half[1];
#if LANES > 2
    F(Q) quarter[2];
    memcpy(quarter, half, sizeof half[0]);
    quarter[0] += quarter[1];
    T sum = quarter[0][0];
    for (int i = 1; i < LANES / 4; i++) sum += quarter[0][i];
    return sum;
#else
    return half[0][0];
#endif
}

/* n pixels of every output: bias + sum of weight * x, then what `end` says. */
INLINE void F(forward_tile)(const product *p, const int n, const int64_t xw, const T *x, int64_t at)
{
    const T *value = p->value, *bias = p->bias;
    for (int o = 0; o < p->outputs; o++, at += p->yc) {
        V a[8];
        const V start = (V){0} + (bias ? bias[o] : 0);
#pragma GCC unroll 8
        for (int i = 0; i < n * PER; i++) a[i] = start;
        for (int e = p->row[o]; e < p->row[o + 1]; e++) {
            const T *from = x + p->off[e], weight = value[p->which ? p->which[e] : e];
#pragma GCC unroll 8
            for (int i = 0; i < n * PER; i++) a[i] += weight * AT(from, i / PER * xw + i % PER * LANES);
        }
#pragma GCC unroll 8
        for (int i = 0; i < n * PER; i++) {
            const int64_t to = at + i / PER * p->yw + i % PER * LANES;
            switch (p->end) {
            case SET: AT(p->y, to) = a[i]; break;
            case ADD: AT(p->y, to) += a[i]; break;
            case RELU: AT(p->y, to) = WHERE(~(a[i] < 0), a[i]); break; /* NaN stays NaN */
            case GATE: AT(p->y, to) = WHERE(~(AT(p->gate, to) <= 0), a[i]); break;
            }
        }
    }
}

/* n pixels' share of the gradients of every surviving weight and bias; the first tile begins the sums, an only one
   needs none. */
INLINE void F(gradient_tile)(const product *p, const int n, const int64_t xw, const T *x, int64_t at, int first,
                             const int only)
{
    V *sum = p->sums, *bias = sum + p->row[p->outputs];
    T *value = p->dvalue;
    for (int o = 0; o < p->outputs; o++, at += p->yc) {
        V d[8], all = {0};
#pragma GCC unroll 8
        for (int i = 0; i < n * PER; i++) all += d[i] = AT(p->y, at + i / PER * p->yw + i % PER * LANES);
        bias[o] = first ? all : (V)(bias[o] + all);
        for (int e = p->row[o]; e < p->row[o + 1]; e++) {
            const T *from = x + p->off[e];
            V a = first ? (V){0} : sum[e], b = {0};
#pragma GCC unroll 8
            for (int i = 0; i < n * PER; i++)
                *(i % 2 ? &b : &a) += d[i] * AT(from, i / PER * xw + i % PER * LANES);
            if (only) value[e] = F(total)(a + b);
            else sum[e] = a + b;
        }
    }
}

/* Whether all pixels are one tile. */
INLINE int F(only)(const product *p)
{
    const int size = p->outer * p->height * p->width;
    return p->width == size && size <= TILE && !(size & (size - 1));
}

/* Every pixel, in tiles as large as a row allows; xw is a constant where pixels lie side by side. */
INLINE void F(tiles)(const product *p, const int forward, const int64_t xw)
{
    const int size = p->width, only = F(only)(p);
    int first = 1;
    for (int b = 0; b < p->outer; b++)
        for (int h = 0; h < p->height; h++) {
            const T *x = (const T *)p->x + b * p->xb + h * p->xh;
            const int64_t at = b * p->yb + h * p->yh;
            int w = 0;
#define TILES_OF(n)                                                                                        \
    for (; w + n <= size; w += n, first = 0)                                                               \
        if (forward) F(forward_tile)(p, n, xw, x + w * xw, at + w * p->yw);                                \
        else if (only) F(gradient_tile)(p, n, xw, x + w * xw, at + w * p->yw, 1, 1);                       \
        else F(gradient_tile)(p, n, xw, x + w * xw, at + w * p->yw, first, 0);
#if TILE > 4
            TILES_OF(8)
#endif
#if TILE > 2
            TILES_OF(4)
#endif
#if TILE > 1
            TILES_OF(2)
#endif
            TILES_OF(1)
#undef TILES_OF
        }
}

static void F(forward)(const product *p, int count)
{
    for (; count--; p++)
        if (p->xw == 16) F(tiles)(p, 1, 16);
        else F(tiles)(p, 1, p->xw);
}

static void F(gradient)(const product *p, int count)
{
    for (; count--; p++) {
        if (p->xw == 16) F(tiles)(p, 0, 16);
        else F(tiles)(p, 0, p->xw);
        const int weights = p->row[p->outputs], only = F(only)(p);
        const V *sum = p->sums;
        for (int e = only ? weights : 0; e < weights; e++) ((T *)p->dvalue)[e] = F(total)(sum[e]);
        if (p->dbias)
            for (int o = 0; o < p->outputs; o++) ((T *)p->dbias)[o] = F(total)(sum[weights + o]);
    }
}

#include "images.h"

/* Examples [batch, channels, height, width] to lanes, zero where a block lacks examples; and back. */
static void F(load)(const image *p, int count)
{
    for (; count--; p++) {
        const int64_t size = (int64_t)p->channels * p->height * p->width;
        for (int b = 0; b < p->blocks; b++) {
            const T *from = (const T *)p->x + 16 * b * size;
            const int lanes = p->batch - 16 * b < 16 ? p->batch - 16 * b : 16;
            for (int c = 0; c < p->channels; c++)
                for (int h = 0; h < p->height; h++) {
                    T *to = (T *)p->y + c * p->yc + b * p->yb + h * p->yh;
                    for (int w = 0; w < p->width; w++, from++, to += 16) {
                        if (lanes == 16)
                            for (int i = 0; i < 16; i++) to[i] = from[i * size];
                        else
                            for (int i = 0; i < 16; i++) to[i] = i < lanes ? from[i * size] : 0;
                    }
                }
        }
    }
}

static void F(store)(const image *p, int count)
{
    for (; count--; p++) {
        const int64_t size = (int64_t)p->channels * p->height * p->width;
        for (int n = 0; n < p->batch; n++) {
            T *to = (T *)p->x + n * size;
            for (int c = 0; c < p->channels; c++)
                for (int h = 0; h < p->height; h++) {
                    const T *from = (const T *)p->y + c * p->yc + n / 16 * p->yb + h * p->yh + n % 16;
                    for (int w = 0; w < p->width; w++) *to++ = from[16 * w];
                }
        }
    }
}

#undef V
#undef I
#undef LANES
#undef PER
#undef TILE
#undef AT
#undef WHERE
#endif
