// From parts of gradients to a step of the optimiser.

// Sums of parts, in their order, added to a gradient: rows x columns numbers, from number `at` of each part on, whose rows
// are `part_stride` apart.
extern "C" __global__ void reduce(const float *parts, u32 count, u32 length, u32 at, u32 part_stride, u32 rows, u32 columns,
                                  float *out, u32 stride) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * columns) return;
    const size_t place = at + (size_t)(i / columns) * part_stride + i % columns;
    float sum = 0.0f;
    for (u32 p = 0; p < count; p++) sum += parts[(size_t)p * length + place];
    out[(size_t)(i / columns) * stride + i % columns] += sum;
}

// Sum of squares of a block's share, in f64. Shared memory: a f64 a thread.
extern "C" __global__ void squares(const float *x, u32 count, double *out) {
    SHARED(shared);
    double *sums = (double *)shared, sum = 0.0;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        sum += (double)x[i] * (double)x[i];
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (u32 t = 1; t < blockDim.x; t++) sum += sums[t];
    out[blockIdx.x] = sum;
}

// A parameter: its first number, rows, columns; where its copy for products begins (in words) and the stride of its rows,
// NONE for none; where its rows' marks begin, NONE where all of it moves. Marks are numbers above 0, so that a group adds
// them up with the gradients.
struct Record {
    u32 start, rows, columns, copy, stride, touched;
};

// One step of Adam with decoupled weight decay (see `lately_kernels::adam`) over all parameters, which also clears the
// gradient and rewrites the products' copies of the weights. Only the latter unless `step`.
extern "C" __global__ void adam(const Record *records, float *w, float *g, float *m, float *v, u32 *copies,
                                const float *touched, u32 step, float scale, float first, float second, float rate,
                                float epsilon, float keep) {
    const Record r = records[blockIdx.y];
    Real *copy = r.copy == NONE ? 0 : (Real *)(copies + r.copy);
    const u32 count = r.rows * r.columns;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
        const u32 row = i / r.columns, column = i % r.columns;
        const size_t at = (size_t)r.start + i;
        if (step && (r.touched == NONE || touched[r.touched + row] > 0.0f)) {
            float x = g[at] * scale;
            float mean = m[at] + first * (x - m[at]), square = v[at] + second * (x * x - v[at]);
            m[at] = mean;
            v[at] = square;
            w[at] = w[at] * keep - rate * mean / (sqrtf(square) + epsilon);
            g[at] = 0.0f;
        }
        if (copy) copy[(size_t)row * r.stride + column] = real(w[at]);
    }
}

extern "C" __global__ void clear_words(u32 *words, u32 count) {
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) words[i] = 0;
}
