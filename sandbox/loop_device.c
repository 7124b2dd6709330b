/* See loop_device.h. */
#include "sandbox/loop_device.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"

bool loop_devices(void)
{
	cleanup_close int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	return ctl >= 0 && ioctl(ctl, LOOP_CTL_GET_FREE) >= 0;
}

static int loop_open(const char *name)
{
	char path[64];

	snprintf(path, sizeof path, "/dev/%s", name);
	return open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
}

int loop_find(const struct stat *img, char name[LOOP_NAME])
{
	cleanup_dir DIR *d = opendir("/sys/block");
	struct dirent *e;

	while (d && (e = readdir(d)) != NULL) {
		struct loop_info64 info;
		char attached[300];
		snprintf(attached, sizeof attached, "/sys/block/%s/loop", e->d_name);
		if (strncmp(e->d_name, "loop", 4) != 0 || strlen(e->d_name) >= LOOP_NAME || access(attached, F_OK) < 0)
			continue;
		int fd = loop_open(e->d_name);
		if (fd >= 0 && ioctl(fd, LOOP_GET_STATUS64, &info) == 0 && info.lo_device == img->st_dev &&
		    info.lo_inode == img->st_ino) {
			snprintf(name, LOOP_NAME, "%.31s", e->d_name);
			return fd;
		}
		if (fd >= 0)
			close(fd);
	}
	return -1;
}

int loop_attach(int img, char name[LOOP_NAME], struct err *err)
{
	cleanup_close int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

	if (ctl < 0)
		return err_set(err, errno, "open /dev/loop-control");
	for (int tries = 0; tries < 64; tries++) { /* others may take the free one before us */
		struct loop_config config = {.fd = (unsigned)img,
					     .info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO};
		int n = ioctl(ctl, LOOP_CTL_GET_FREE);
		if (n < 0)
			return err_set(err, errno, "no free loop device");
		snprintf(name, LOOP_NAME, "loop%d", n);
		int fd = loop_open(name);
		if (fd < 0)
			return err_set(err, errno, "open /dev/%s", name);
		if (ioctl(fd, LOOP_CONFIGURE, &config) == 0)
			return fd;
		if (errno == EINVAL) { /* the file system below cannot do direct io */
			config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
			if (ioctl(fd, LOOP_CONFIGURE, &config) == 0)
				return fd;
		}
		int e = errno;
		close(fd);
		if (e != EBUSY)
			return err_set(err, e, "attach /dev/%s", name);
	}
	return err_set(err, EBUSY, "no free loop device");
}
