/* See base_progress.h. */
#include "spaced/cli/base_progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"

#define REDRAW_MS 100

static void clear(void)
{
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
}

void progress_phase(struct progress *p, const char *fmt, ...)
{
	va_list ap;

	p->began = p->began ? p->began : io_now_ms();
	clear();
	fprintf(stderr, "%4llu s  ", (unsigned long long)(io_now_ms() - p->began) / 1000);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* At most `max` bytes, without what could move a terminal's cursor. */
static void print_plain(const char *line, size_t max)
{
	for (size_t n = 0; line[n] && n < max; n++)
		fputc((unsigned char)line[n] >= 0x20 && (unsigned char)line[n] < 0x7f ? line[n] : '.', stderr);
}

static void draw(struct progress *p, const char *line)
{
	struct winsize w = {0};
	size_t width = ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col : 80;

	p->drawn = io_now_ms();
	fprintf(stderr, "\r\033[K%4llu s    ", (unsigned long long)(p->drawn - p->began) / 1000);
	print_plain(line, width - 12);
	fflush(stderr);
}

/* What mmdebstrap and debootstrap say of their own steps, without debootstrap's line for each package. */
static bool is_step(const char *line)
{
	static const char *const each[] = {"I: Extracting ", "I: Unpacking ", "I: Configuring "};

	if (strncmp(line, "I: ", 3) != 0 || !strstr(line, "..."))
		return false;
	for (size_t i = 0; i < sizeof each / sizeof *each; i++)
		if (strncmp(line, each[i], strlen(each[i])) == 0 && !strstr(line, " packages"))
			return false;
	return true;
}

void progress_line(void *ctx, const char *line)
{
	struct progress *p = ctx;
	char **slot = &p->tail[p->lines++ % PROGRESS_TAIL];

	free(*slot);
	*slot = xstrdup(line);
	if (isatty(STDERR_FILENO) && io_now_ms() - p->drawn >= REDRAW_MS)
		draw(p, line);
	else if (!isatty(STDERR_FILENO) && is_step(line))
		progress_phase(p, "  %.200s", line + 3);
}

void progress_end(struct progress *p, bool tell)
{
	clear();
	for (size_t i = p->lines < PROGRESS_TAIL ? 0 : p->lines - PROGRESS_TAIL; tell && i < p->lines; i++) {
		const char *line = p->tail[i % PROGRESS_TAIL];
		fputs("  | ", stderr);
		print_plain(line, 500);
		fputc('\n', stderr);
	}
	for (size_t i = 0; i < PROGRESS_TAIL; i++)
		free(p->tail[i]);
	*p = (struct progress){0};
}
