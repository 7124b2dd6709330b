/* Batches of steady work, the same program inside a sandbox and outside of it. For tests/bench/start.c. */
#ifndef TESTS_BENCH_WORK_H
#define TESTS_BENCH_WORK_H

/* One byte in (the first letter of syscalls, messages, blocks, files, tar or cpu), the nanoseconds of one batch out, until the end of file. */
int work_loop(int in, int out);

#endif
