/* What lies between the convolutions of a network: BatchNorm and max pools. Part of lanes.h. */

/* BatchNorm: the mean and the variance of every channel over the examples there are. */
static void F(moments)(const norm *p, int count)
{
    for (; count--; p++) {
        const T examples = (T)p->batch * p->height * p->width;
        for (int c = 0; c < p->channels; c++) {
            T mean = 0, variance = 0;
            for (int pass = 0; pass < 2; pass++) {
                V all = {0};
                for (int b = 0; b < p->blocks; b++) {
                    const int there = p->batch - 16 * b;
                    for (int h = 0; h < p->height; h++) { /* sums of rows first: less is rounded away */
                        const int64_t at = b * p->b + c * p->c + h * p->h;
                        for (int j = 0; j < PER; j++) {
                            V row = {0};
                            for (int w = 0; w < p->width; w++) {
                                const V x = AT(p->x, at + 16 * w + j * LANES) - mean;
                                row += pass ? (V)(x * x) : x;
                            }
                            if (there < 16)
                                for (int i = 0; i < LANES; i++) row[i] = j * LANES + i < there ? row[i] : 0;
                            all += row;
                        }
                    }
                }
                *(pass ? &variance : &mean) = F(total)(all) / examples;
            }
            ((T *)p->mean)[c] = mean;
            ((T *)p->variance)[c] = variance;
        }
    }
}

/* y = (x - mean) / deviation * weight + bias, with a ReLU if asked for. */
static void F(normalise)(const norm *p, int count)
{
    for (; count--; p++)
        for (int c = 0; c < p->channels; c++) {
            const T mean = ((T *)p->mean)[c], bias = ((T *)p->bias)[c];
            const T scale = ((T *)p->weight)[c] / (T)sqrt(((T *)p->variance)[c] + p->epsilon);
            for (int b = 0; b < p->blocks; b++)
                for (int h = 0; h < p->height; h++) {
                    const int64_t at = b * p->b + c * p->c + h * p->h;
                    for (int i = 0; i < 16 * p->width; i += LANES) {
                        const V y = (AT(p->x, at + i) - mean) * scale + bias;
                        AT(p->y, at + i) = p->relu ? WHERE(~(y < 0), y) : y;
                    }
                }
        }
}

/* The gradient of y becomes that of x, in place; and those of weight and bias. */
static void F(denormalise)(const norm *p, int count)
{
    for (; count--; p++) {
        const T examples = (T)p->batch * p->height * p->width;
        for (int c = 0; c < p->channels; c++) {
            const T mean = ((T *)p->mean)[c], inverse = 1 / (T)sqrt(((T *)p->variance)[c] + p->epsilon);
            const T scale = ((T *)p->weight)[c] * inverse;
            V sum = {0}, product = {0};
            for (int b = 0; b < p->blocks; b++)
                for (int h = 0; h < p->height; h++) {
                    const int64_t at = b * p->b + c * p->c + h * p->h;
                    V row = {0}, across = {0};
                    for (int i = 0; i < 16 * p->width; i += LANES) {
                        V d = AT(p->d, at + i);
                        if (p->relu) AT(p->d, at + i) = d = WHERE(~(AT(p->y, at + i) <= 0), d);
                        row += d;
                        across += d * (AT(p->x, at + i) - mean);
                    }
                    sum += row;
                    product += across;
                }
            const T bias = F(total)(sum), weight = F(total)(product) * inverse;
            ((T *)p->dbias)[c] = bias;
            ((T *)p->dweight)[c] = weight;
            const T shift = bias / examples, slope = weight * inverse / examples;
            for (int b = 0; b < p->blocks; b++) {
                const int there = p->batch - 16 * b;
                for (int h = 0; h < p->height; h++) {
                    const int64_t at = b * p->b + c * p->c + h * p->h;
                    for (int i = 0; i < 16 * p->width; i += LANES) {
                        V d = scale * (AT(p->d, at + i) - shift - (AT(p->x, at + i) - mean) * slope);
                        if (there < 16) /* who is not there has no gradient */
                            for (int j = 0; j < LANES; j++) d[j] = i % 16 + j < there ? d[j] : 0;
                        AT(p->d, at + i) = d;
                    }
                }
            }
        }
    }
}

/* The largest of every size x size window, NaN if one is; and its gradient to the first that is as large, where that
   is above zero if the ReLU before asks for it. */
static void F(pool)(const window *p, int count)
{
    for (; count--; p++)
        for (int b = 0; b < p->blocks; b++)
            for (int c = 0; c < p->channels; c++)
                for (int h = 0; h < p->height; h++)
                    for (int i = 0; i < 16 * p->width; i += LANES) {
                        const int64_t at = b * p->xb + c * p->xc + h * p->size * p->xh + i / 16 * p->size * 16 + i % 16;
                        V most = AT(p->x, at);
                        for (int k = 1; k < p->size * p->size; k++) {
                            const V x = AT(p->x, at + k / p->size * p->xh + k % p->size * 16);
                            const I more = (I)(x > most) | (I)(x != x);
                            most = (V)((more & (I)x) | (~more & (I)most));
                        }
                        AT(p->y, b * p->yb + c * p->yc + h * p->yh + i) = most;
                    }
}

static void F(unpool)(const window *p, int count)
{
    for (; count--; p++)
        for (int b = 0; b < p->blocks; b++)
            for (int c = 0; c < p->channels; c++)
                for (int h = 0; h < p->height; h++)
                    for (int i = 0; i < 16 * p->width; i += LANES) {
                        const int64_t at = b * p->xb + c * p->xc + h * p->size * p->xh + i / 16 * p->size * 16 + i % 16;
                        const int64_t from = b * p->yb + c * p->yc + h * p->yh + i;
                        const V most = AT(p->y, from), d = AT(p->dy, from);
                        I left = p->relu ? ~(I)(most <= 0) : ~(I){0};
                        for (int k = 0; k < p->size * p->size; k++) {
                            const int64_t to = at + k / p->size * p->xh + k % p->size * 16;
                            const I here = left & (I)(AT(p->x, to) == most);
                            AT(p->dx, to) = WHERE(here, d);
                            left &= ~here;
                        }
                    }
}
