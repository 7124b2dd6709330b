/* Drives one build through its recipe: a volume per layer, a sandbox per step. Every step waits for all that it started
 * (sandbox, stream of the tree, extraction of the site) before drive_check() decides how it went on. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "spaced/build/internal.h"
#include "spaced/build/logfile.h"
#include "spaced/git/git.h"
#include "spaced/static/static.h"

#define ATTEMPTS 3
#define SIGPIPE_STATUS (128 + 13)

static void next_layer(struct job *j);
static void next_step(struct job *j);

void drive_phase(struct job *j, const char *phase)
{
	uint64_t now = io_now_ms();
	struct err err = ERR_INIT;

	if (j->phase && phase && strcmp(j->phase, phase) == 0)
		return;
	if (j->phase) {
		bool bad = !phase && j->ending != OUT_BUILT && j->ending != NO_ENDING;
		logfile_printf(j->log, "--> %s %s(%.1f s)\n", j->phase, bad ? "ended " : "",
			       (double)(now - j->phase_began) / 1000);
	}
	j->phase = phase;
	j->phase_began = now;
	if (!phase)
		return;
	logfile_printf(j->log, "--> %s\n", phase);
	if (store_build_set(j->b->store, j->id, BUILD_RUNNING, phase, "", &err) < 0)
		log_warn("build %s: %s", j->id, err.msg);
}

static struct layer_plan *plan(struct job *j)
{
	return &j->recipe.layers[j->layer];
}

static struct step *step(struct job *j)
{
	return &plan(j)->steps[j->step];
}

/* ---- the end of a step ---- */

static bool log_says(struct job *j, const char *const *words)
{
	cleanup_free char *path = logfile_build(j->b->config, j->id);
	cleanup_buf struct buf tail = BUF_INIT;

	logfile_tail(path, j->log_from, 65536, 2000, &tail);
	for (; tail.data && *words; words++)
		if (memmem(tail.data, tail.len, *words, strlen(*words)))
			return true;
	return false;
}

static bool begins(const char *line, size_t n, const char *with)
{
	size_t k = strlen(with);
	return n >= k && memcmp(line, with, k) == 0;
}

/* npm 10 says "npm error", npm 9 of Debian "npm ERR!"; short lines are codes. */
static bool npm_sentence(const char *line, size_t n)
{
	return n > 40 && (begins(line, n, "npm error ") || begins(line, n, "npm ERR! "));
}

/* The line of the step's own output that says most, for the one-sentence reason: pip's and uv's last "ERROR:", npm's
 * first sentence, else the last line. */
static void telling_line(struct job *j, char *out, size_t size)
{
	cleanup_free char *path = logfile_build(j->b->config, j->id);
	cleanup_buf struct buf tail = BUF_INIT;
	const char *best = "";
	size_t best_n = 0;
	unsigned best_rank = 0;
	size_t len = 0;

	logfile_tail(path, j->log_from, 32768, 400, &tail);
	for (size_t at = 0; at < tail.len; at += len + 1) {
		const char *line = tail.data + at;
		const char *nl = memchr(line, '\n', tail.len - at);
		len = nl ? (size_t)(nl - line) : tail.len - at;
		unsigned rank = begins(line, len, "ERROR: ")  ? 3
				: npm_sentence(line, len)     ? 2
				: strspn(line, " \t\r") < len ? 1
							      : 0;
		if (rank > best_rank || (rank == best_rank && rank != 2)) {
			best = line;
			best_n = len;
			best_rank = rank;
		}
	}
	size_t n = 0;
	for (size_t i = 0; i < best_n && n + 1 < size && n < 200; i++)
		if ((unsigned char)best[i] >= 0x20)
			out[n++] = best[i];
	out[n] = '\0';
}

static void step_failed(struct job *j)
{
	const char *phase = j->phase ? j->phase : "build";
	char line[256];

	/* a stream that broke because its reader ended is not the cause */
	bool broken = j->io_error && strcasestr(j->io_error, "broken pipe");

	if (j->start_error)
		job_end(j, OUT_FAILED, "%s: the sandbox did not start: %s", phase, j->start_error);
	else if (j->io_error && !broken && (!j->exit.status || j->exit.status == SIGPIPE_STATUS || step(j)->input_kind))
		job_end(j, OUT_FAILED, "%s: %s", phase, j->io_error);
	else if (j->exit.timeout)
		job_end(j, OUT_FAILED, "%s: timeout: the build took longer than %u s", phase,
			j->b->config->build_timeout_s);
	else if (j->exit.oom)
		job_end(j, OUT_FAILED, "%s: %s", phase, j->exit.reason);
	else {
		telling_line(j, line, sizeof line);
		job_end(j, OUT_FAILED, "Job failed with exit code: %d (%s)%s%s", j->exit.status, phase,
			*line ? ": " : "", line);
	}
}

static void on_layer_noted(struct job *j, const char *volume)
{
	j->volumes[j->layer] = xstrdup(volume);
	j->top[0] = '\0';
	j->layer++;
	next_layer(j);
}

static void note_layer(struct job *j, const char *volume)
{
	struct err err = ERR_INIT;

	if (*plan(j)->key &&
	    ((j->factory && store_layer_remove(j->b->store, plan(j)->key, &err) < 0 && err.code != ENOENT) ||
	     (store_layer_add(j->b->store, plan(j)->key, volume, &err) < 0 && err.code != EEXIST)))
		log_warn("build %s: layer %s: %s", j->id, volume, err.msg);
	on_layer_noted(j, volume);
}

static void on_renamed(void *ctx, const char *name, const struct err *err)
{
	struct job *j = ctx;

	j->becomes[0] = '\0';
	if (j->ended || j->ending != NO_ENDING)
		drive_check(j);
	else if (err && err->code == EEXIST) {
		/* another build made the same layer in the meantime, or this one did before it was interrupted */
		place_volume_remove(j->b->place, j->top, NULL, NULL);
		note_layer(j, name);
	} else if (err && err->code == ECONNRESET) {
		j->interrupted = true;
		drive_check(j);
	} else if (err) {
		job_end(j, OUT_FAILED, "%s: %s", j->phase ? j->phase : "build", err->msg);
	} else {
		note_layer(j, name);
	}
	job_unref(j);
}

static void layer_done(struct job *j)
{
	struct layer_plan *l = plan(j);
	cleanup_free char *name = NULL;

	if (l->scratch) {
		place_volume_remove(j->b->place, j->top, NULL, NULL);
		j->top[0] = '\0';
		j->layer++;
		next_layer(j);
		return;
	}
	if (!*l->key)
		name = xasprintf("%s-%s", l->prefix, j->id);
	else if (j->factory)
		name = xasprintf("%s-%.32s-%s", l->prefix, l->key, j->id);
	else
		name = xasprintf("%s-%.32s", l->prefix, l->key);
	snprintf(j->becomes, sizeof j->becomes, "%s", name);
	j->refs++;
	place_volume_rename(j->b->place, j->top, name, on_renamed, j);
}

void drive_check(struct job *j)
{
	if (j->starting || j->running || j->streaming || j->extracting || j->ended || j->b->ending)
		return;
	if (j->ending != NO_ENDING) {
		job_end(j, j->ending, "%s", j->message ? j->message : "");
		return;
	}
	if (j->interrupted) {
		drive_cleanup(j);
		if (++j->attempts >= ATTEMPTS)
			job_end(j, OUT_FAILED, "the sandbox service ended during the build, %d times", ATTEMPTS);
		else
			job_again(j);
		return;
	}
	if (!j->recipe.nlayers) { /* plain static */
		if (j->io_error)
			job_end(j, OUT_FAILED, "publish: %s", j->io_error);
		else
			job_end(j, OUT_BUILT, "%s", "");
		return;
	}
	if (!j->start_error && j->exit.status != 0 && !j->exit.timeout && !j->exit.oom && step(j)->fallback &&
	    !j->fallback && log_says(j, step(j)->fallback_on)) {
		logfile_printf(j->log, "%s\n", step(j)->fallback_note);
		j->fallback = true;
		next_step(j);
		return;
	}
	if (j->start_error || j->exit.status != 0 || j->io_error) {
		step_failed(j);
		return;
	}
	j->fallback = false;
	j->step++;
	if (j->step < plan(j)->nsteps)
		next_step(j);
	else
		layer_done(j);
}

/* ---- a step ---- */

static void keep_error(char **to, const char *error)
{
	if (error && !*to)
		*to = xstrdup(error);
}

static void on_streamed(void *ctx, const char *error)
{
	struct job *j = ctx;

	j->streaming = false;
	keep_error(&j->io_error, error);
	drive_check(j);
	job_unref(j);
}

static void on_extracted(void *ctx, const char *error)
{
	struct job *j = ctx;

	j->extracting = false;
	keep_error(&j->io_error, error);
	drive_check(j);
	job_unref(j);
}

static void on_started(void *ctx, const char *name, const struct err *err)
{
	struct job *j = ctx;

	(void)name;
	j->starting = false;
	if (err) {
		j->running = false;
		j->interrupted |= err->code == ECONNRESET;
		keep_error(&j->start_error, err->msg);
	} else if (j->running && j->ending != NO_ENDING) {
		drive_kill(j);
	}
	drive_check(j);
	job_unref(j);
}

static bool stream_tree(struct job *j, int out_fd)
{
	struct err err = ERR_INIT;

	j->streaming = true;
	j->refs++;
	if (git_archive(j->b->loop, j->b->config, j->repo, j->commit, "", out_fd, on_streamed, j, &err) == 0)
		return true;
	j->streaming = false;
	j->refs--;
	keep_error(&j->io_error, err.msg);
	return false;
}

static bool extract_site(struct job *j, int in_fd)
{
	struct err err = ERR_INIT;

	j->extracting = true;
	j->refs++;
	if (site_extract(j->b->loop, j->b->config, j->id, in_fd, j->recipe.site_json, on_extracted, j, &err) == 0)
		return true;
	j->extracting = false;
	j->refs--;
	keep_error(&j->io_error, err.msg);
	return false;
}

/* A file in memory with the step's input, read from its beginning. */
static int input_bytes(const struct buf *b)
{
	int fd = memfd_create("step-input", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	int rc = io_write_full(fd, b->data, b->len);
	if (rc == 0 && lseek(fd, 0, SEEK_SET) < 0)
		rc = -errno;
	if (rc < 0) {
		close(fd);
		return rc;
	}
	return fd;
}

/* Opens what the step reads and writes. False: `io_error` says why. */
static bool open_io(struct job *j, const struct step *s, int *in, int *out)
{
	int in_pipe[2], out_pipe[2];

	if (s->output_site) {
		if (pipe2(out_pipe, O_CLOEXEC) < 0) {
			keep_error(&j->io_error, strerror(errno));
			return false;
		}
		*out = out_pipe[1];
		if (!extract_site(j, out_pipe[0]))
			return false;
	}
	if (s->input_kind == INPUT_BYTES) {
		*in = input_bytes(&s->input);
		if (*in < 0)
			keep_error(&j->io_error, strerror(-*in));
		return *in >= 0;
	}
	if (s->input_kind == INPUT_TREE) {
		if (pipe2(in_pipe, O_CLOEXEC) < 0) {
			keep_error(&j->io_error, strerror(errno));
			return false;
		}
		*in = in_pipe[0];
		return stream_tree(j, in_pipe[1]);
	}
	return true;
}

static void show(struct job *j, char *const *argv)
{
	cleanup_buf struct buf b = BUF_INIT;

	for (size_t i = 0; argv[i]; i++)
		buf_addf(&b, strpbrk(argv[i], " ><[]*") ? " \"%s\"" : " %s", argv[i]);
	logfile_printf(j->log, "--> RUN%s\n", b.data);
}

/* Seconds left of the whole build, at least one. */
static uint32_t time_left(const struct job *j)
{
	uint64_t used = (io_now_ms() - j->began) / 1000;

	return used + 1 >= j->b->config->build_timeout_s ? 1 : (uint32_t)(j->b->config->build_timeout_s - used);
}

static void fill_spec(struct job *j, const struct step *s, struct sandbox_spec *spec)
{
	const struct config *c = j->b->config;

	*spec = (struct sandbox_spec){
	    .profile = s->profile,
	    .id_base = c->id_base ? c->id_base + j->slot * SANDBOX_IDS : 0,
	    .base = *j->base ? j->base : NULL,
	    .uid = s->profile == SANDBOX_BUILD_ROOT ? 0 : 1000,
	    .gid = s->profile == SANDBOX_BUILD_ROOT ? 0 : 1000,
	    .top = j->top,
	    .argv = j->fallback ? s->fallback : s->argv,
	    .env = s->env,
	    .cwd = s->cwd,
	    .hostname = "build",
	    .egress = s->internet ? c->build_egress : EGRESS_NONE,
	    .egress_list = c->build_egress_list,
	    .limits = {.memory = c->build_memory,
		       .cpu_milli = c->build_cpu_milli,
		       .pids = c->build_pids,
		       .io_bytes = c->build_io,
		       .timeout_s = time_left(j),
		       .log_bytes = c->log_bytes},
	};
	for (size_t i = j->layer; i-- > 0;)
		if (j->volumes[i])
			spec->layers[spec->nlayers++] = j->volumes[i];
	memcpy(spec->name, j->sandbox, sizeof spec->name);
}

static void next_step(struct job *j)
{
	const struct step *s = step(j);
	cleanup_free char *path = logfile_build(j->b->config, j->id);
	cleanup_close int in = -1;
	cleanup_close int out = -1;
	struct sandbox_spec spec;
	char tag[9];

	free(j->io_error);
	free(j->start_error);
	j->io_error = j->start_error = NULL;
	j->exit = (struct sandbox_exit){0};
	drive_phase(j, s->phase);
	if (s->show)
		show(j, j->fallback ? s->fallback : s->argv);
	j->log_from = logfile_size(path);
	/* a name of its own: after a restart of control the old sandbox of the same build may still be ending */
	io_random_hex(tag, 4);
	snprintf(j->sandbox, sizeof j->sandbox, "build-%s-%s", j->id, tag);
	/* held against callbacks that come while the step is still being set up */
	j->starting = true;
	if (!open_io(j, s, &in, &out)) {
		j->starting = false;
		cleanup_closep(&in);
		in = -1;
		cleanup_closep(&out);
		out = -1;
		drive_check(j);
		return;
	}
	fill_spec(j, s, &spec);
	j->running = true;
	j->refs++;
	place_start(j->b->place, &spec, 0, 0, j->log, in, out, on_started, j);
}

void drive_kill(struct job *j)
{
	if (j->running && !j->starting)
		place_stop(j->b->place, j->sandbox, 0, NULL, NULL);
}

/* ---- a layer ---- */

static void on_volume(void *ctx, const char *name, const struct err *err)
{
	struct job *j = ctx;

	(void)name;
	if (j->ending != NO_ENDING) {
		drive_check(j);
	} else if (err && err->code == ECONNRESET) {
		j->interrupted = true;
		drive_check(j);
	} else if (err) {
		job_end(j, OUT_FAILED, "%s: %s", plan(j)->phase, err->msg);
	} else {
		next_step(j);
	}
	job_unref(j);
}

/* A static build must have made the page that it promised. */
static bool site_has_page(struct job *j)
{
	if (j->recipe.kind != KIND_STATIC_BUILD)
		return true;
	const char *slash = strrchr(j->verdict.app_file, '/');
	cleanup_free char *path = xasprintf("%s/%s/%s/files/%s", j->b->config->state, STATE_SITES, j->id,
					    slash ? slash + 1 : j->verdict.app_file);
	if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return true;
	job_end(j, OUT_NO_APP_FILE,
		"The build made no `%.100s`. Correct `app_file` or `app_build_command` in README.md.",
		j->verdict.app_file);
	return false;
}

static void next_layer(struct job *j)
{
	struct layer cached = {0};
	struct err err = ERR_INIT;
	char tag[9];

	if (j->ending != NO_ENDING) {
		drive_check(j);
		return;
	}
	if (j->layer == j->recipe.nlayers) {
		if (site_has_page(j))
			job_end(j, OUT_BUILT, "%s", "");
		return;
	}
	struct layer_plan *l = plan(j);
	j->step = 0;
	if (*l->key && !j->factory && store_layer_get(j->b->store, l->key, &cached, &err) == 0) {
		drive_phase(j, NULL);
		logfile_printf(j->log, "--> %s CACHED\n", l->phase);
		on_layer_noted(j, cached.volume);
		layer_release(&cached);
		return;
	}
	io_random_hex(tag, 4);
	snprintf(j->top, sizeof j->top, "tmp-%s-%s", j->id, tag);
	j->refs++;
	place_volume_create(j->b->place, j->top, j->b->config->build_disk, on_volume, j);
}

static void place_site(struct job *j)
{
	int p[2];

	drive_phase(j, "publish");
	if (pipe2(p, O_CLOEXEC) < 0) {
		job_end(j, OUT_FAILED, "pipe: %s", strerror(errno));
		return;
	}
	j->starting = true;
	if (extract_site(j, p[0]))
		stream_tree(j, p[1]);
	else
		close(p[1]);
	j->starting = false;
	drive_check(j);
}

void drive_begin(struct job *j)
{
	struct err err = ERR_INIT;

	j->began = io_now_ms();
	if (store_build_set(j->b->store, j->id, BUILD_RUNNING, "reading", "", &err) < 0)
		log_warn("build %s: %s", j->id, err.msg);
	for (size_t i = 0; i < j->recipe.notes.n && !j->attempts; i++)
		logfile_printf(j->log, "note: %s\n", j->recipe.notes.v[i]);
	if (j->recipe.nlayers)
		next_layer(j);
	else
		place_site(j);
}

void drive_cleanup(struct job *j)
{
	if (*j->top) {
		place_volume_remove(j->b->place, j->top, NULL, NULL);
		j->top[0] = '\0';
	}
	if (j->ending == OUT_BUILT || j->ending == NO_ENDING)
		return;
	for (size_t i = 0; i < j->recipe.nlayers; i++)
		if (j->volumes[i] && !*j->recipe.layers[i].key)
			place_volume_remove(j->b->place, j->volumes[i], NULL, NULL);
}
