/* Loop devices: an image in a file as a block device. loop(4), linux/loop.h. */
#ifndef SANDBOX_LOOP_DEVICE_H
#define SANDBOX_LOOP_DEVICE_H

#include <stdbool.h>
#include <sys/stat.h>

#include "base/err.h"

#define LOOP_NAME 32 /* "loop7" and its end */

/* This host lets us have some. */
bool loop_devices(void);
/* The device that already has this image, open for writing, or -1. Two devices on one image would be two caches of one file
 * system: a sandbox of an earlier spawner may still hold it, in a mount namespace that we cannot see. */
int loop_find(const struct stat *img, char name[LOOP_NAME]);
/* Attaches a free device to the image, with direct I/O where the file system can; it detaches by itself after the last
 * unmount. The device, open for writing, or -1 with err. */
int loop_attach(int img, char name[LOOP_NAME], struct err *err);

#endif
