/* See recipe.h: the table of kinds, and what their recipes share. */
#include "spaced/build/recipe.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

static const struct {
	enum kind kind;
	int (*make)(struct making *m, struct err *err);
} makers[] = {
    {KIND_STATIC, recipe_static},     {KIND_STATIC_BUILD, recipe_static_build},
    {KIND_GRADIO, recipe_gradio},     {KIND_STREAMLIT, recipe_streamlit},
    {KIND_PYTHON, recipe_python},     {KIND_NODE, recipe_node},
    {KIND_PROCFILE, recipe_procfile},
};

int recipe_make(const struct card *card, const struct verdict *v, const struct tree *tree, const struct tools *tools,
		struct recipe *out, struct err *err)
{
	struct making m = {card, v, tree, tools, out};

	*out = (struct recipe){.kind = v->kind};
	for (size_t i = 0; i < sizeof makers / sizeof *makers; i++)
		if (makers[i].kind == v->kind)
			return makers[i].make(&m, err);
	return err_text(err, 0, "no recipe for this kind of app");
}

static void step_release(struct step *s)
{
	argv_free(s->argv);
	argv_free(s->env);
	argv_free(s->fallback);
	free(s->cwd);
	buf_release(&s->input);
}

void recipe_release(struct recipe *r)
{
	for (size_t i = 0; i < r->nlayers; i++)
		for (size_t k = 0; k < r->layers[i].nsteps; k++)
			step_release(&r->layers[i].steps[k]);
	argv_free(r->argv);
	free(r->site_json);
	for (size_t i = 0; i < r->notes.n; i++)
		free(r->notes.v[i]);
	free(r->notes.v);
	*r = (struct recipe){0};
}

char **argv_add(char **argv, const char *arg)
{
	size_t n = 0;

	while (argv && argv[n])
		n++;
	argv = xreallocarray(argv, n + 2, sizeof *argv);
	argv[n] = xstrdup(arg);
	argv[n + 1] = NULL;
	return argv;
}

char **argv_of(const char *first, ...)
{
	char **argv = NULL;
	va_list ap;

	va_start(ap, first);
	for (const char *a = first; a; a = va_arg(ap, const char *))
		argv = argv_add(argv, a);
	va_end(ap);
	return argv;
}

void argv_free(char **argv)
{
	for (size_t i = 0; argv && argv[i]; i++)
		free(argv[i]);
	free(argv);
}

void recipe_note(struct making *m, const char *fmt, ...)
{
	struct strings *l = &m->out->notes;
	struct buf b = BUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	buf_addv(&b, fmt, ap);
	va_end(ap);
	l->v = xreallocarray(l->v, l->n + 1, sizeof *l->v);
	l->v[l->n++] = buf_steal(&b, NULL);
}

struct layer_plan *recipe_layer(struct making *m, const char *prefix, const char *phase)
{
	if (m->out->nlayers == RECIPE_LAYERS)
		abort();
	struct layer_plan *l = &m->out->layers[m->out->nlayers++];
	snprintf(l->prefix, sizeof l->prefix, "%s", prefix);
	l->phase = phase;
	return l;
}

/* What every build step sees. Nothing of the daemon's own environment is passed on. */
static char **build_env(void)
{
	static const char *const env[] = {
	    "PATH=/opt/venv/bin:/app/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	    "HOME=/home/user",
	    "USER=user",
	    "LANG=C.UTF-8",
	    "TMPDIR=/var/tmp", /* /tmp is memory; a wheel may have gigabytes */
	    "CI=true",
	    "NO_COLOR=1",
	    "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
	    "REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt",
	    "CURL_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt",
	    "PIP_CERT=/etc/ssl/certs/ca-certificates.crt",
	    "NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt",
	    "PYTHONUNBUFFERED=1",
	    "PIP_NO_CACHE_DIR=1",
	    "PIP_NO_INPUT=1",
	    "PIP_DISABLE_PIP_VERSION_CHECK=1",
	    "PIP_PROGRESS_BAR=off",
	    "PIP_ROOT_USER_ACTION=ignore",
	    "UV_NO_CACHE=1",
	    "UV_COMPILE_BYTECODE=1",
	    "UV_NO_PROGRESS=1",
	    "VIRTUAL_ENV=/opt/venv",
	    "npm_config_cache=/var/tmp/npm",
	    "npm_config_update_notifier=false",
	    "npm_config_fund=false",
	    "npm_config_audit=false",
	    "npm_config_progress=false",
	    "DEBIAN_FRONTEND=noninteractive",
	};
	char **out = NULL;

	for (size_t i = 0; i < sizeof env / sizeof *env; i++)
		out = argv_add(out, env[i]);
	return out;
}

struct step *recipe_step(struct layer_plan *l, const char *phase)
{
	if (l->nsteps == RECIPE_STEPS)
		abort();
	struct step *s = &l->steps[l->nsteps++];
	s->phase = phase;
	s->profile = SANDBOX_BUILD;
	s->env = build_env();
	s->cwd = xstrdup("/app");
	return s;
}

/* Extracts as uid 1000: whatever owner, device or set-id bit the stream claims, tar cannot give more than that user has. */
static void add_tree(struct layer_plan *l, const char *phase)
{
	struct step *s = recipe_step(l, phase);

	s->input_kind = INPUT_TREE;
	s->argv = argv_of("tar", "-x", "-C", "/app", "--no-same-owner", "--no-same-permissions",
			  "--warning=no-unknown-keyword", NULL);
}

struct layer_plan *recipe_add_source(struct making *m)
{
	struct layer_plan *l = recipe_layer(m, "src", "source");

	add_tree(l, "source");
	return l;
}

int recipe_tree_key(struct making *m, struct layer_hash *h, struct err *err)
{
	char oid[41];

	if (m->tree->id(m->tree->ctx, oid, err) < 0)
		return -1;
	layer_hash_adds(h, "tree", oid);
	struct layer_plan *l = &m->out->layers[m->out->nlayers - 1];
	add_tree(l, l->phase);
	return 0;
}

static la_ssize_t tar_write(struct archive *a, void *ctx, const void *p, size_t n)
{
	(void)a;
	buf_add(ctx, p, n);
	return (la_ssize_t)n;
}

void recipe_tar(const struct req_file *files, size_t n, const char *prefix, struct buf *out)
{
	struct archive *a = archive_write_new();

	archive_write_set_format_pax_restricted(a);
	archive_write_open(a, out, NULL, tar_write, NULL);
	for (size_t i = 0; i < n; i++) {
		cleanup_free char *path = xasprintf("%s%s", prefix, files[i].path);
		struct archive_entry *e = archive_entry_new();
		archive_entry_set_pathname(e, path);
		archive_entry_set_size(e, (la_int64_t)files[i].len);
		archive_entry_set_filetype(e, AE_IFREG);
		archive_entry_set_perm(e, 0644);
		archive_write_header(a, e);
		archive_write_data(a, files[i].text, files[i].len);
		archive_entry_free(e);
	}
	archive_write_close(a);
	archive_write_free(a);
}

char *recipe_file_arg(const char *path)
{
	return path[0] == '-' ? xasprintf("./%s", path) : xstrdup(path);
}

int recipe_add_packages(struct making *m, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT;
	struct strings names = {0};
	struct layer_hash h;

	if (!m->tree->has(m->tree->ctx, "packages.txt", false))
		return 0;
	if (m->tree->read(m->tree->ctx, "packages.txt", 1 << 16, &text, err) < 0)
		return err_prefix(err, "packages.txt");
	if (packages_read((struct str){text.data, text.len}, &names, err) < 0) {
		packages_release(&names);
		return -1;
	}
	if (names.n && !m->tools->apt) {
		packages_release(&names);
		return err_text(err, 0, "packages.txt: there is no apt-get on this machine");
	}
	if (names.n) {
		struct layer_plan *l = recipe_layer(m, "pkgs", "packages");
		struct step *update = recipe_step(l, "packages");
		struct step *install = recipe_step(l, "packages");

		layer_hash_init(&h, "packages");
		layer_hash_adds(&h, "base", m->tools->base);
		/* apt's own sandbox user needs ids that this container does not have to give */
		update->argv = argv_of("apt-get", "-q", "-o", "APT::Sandbox::User=root", "update", NULL);
		install->argv =
		    argv_of("apt-get", "-q", "-y", "-o", "APT::Sandbox::User=root", "-o", "Dpkg::Use-Pty=0", "-o",
			    "Dpkg::Options::=--force-confold", "--no-install-recommends", "install", NULL);
		for (size_t i = 0; i < names.n; i++) {
			install->argv = argv_add(install->argv, names.v[i]);
			layer_hash_adds(&h, "name", names.v[i]);
		}
		install->show = true;
		struct step *clean = recipe_step(l, "packages");
		clean->argv = argv_of("rm", "-rf", "/var/lib/apt/lists", "/var/cache/apt", NULL);
		for (size_t i = 0; i < l->nsteps; i++) {
			l->steps[i].profile = SANDBOX_BUILD_ROOT;
			l->steps[i].internet = i < 2;
			free(l->steps[i].cwd);
			l->steps[i].cwd = xstrdup("/");
		}
		layer_hash_final(&h, l->key);
	}
	packages_release(&names);
	return 0;
}
