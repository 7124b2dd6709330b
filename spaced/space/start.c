/* Starts an instance: from a release and the Space's record to a sandbox spec with Hugging Face's environment (reference
 * §8.1), and follows it until it is healthy. */
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/egress_list.h"
#include "spaced/build/logfile.h"
#include "spaced/space/internal.h"

/* ---- the release's recipe ---- */

static char *text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? xstrdup(s) : NULL;
}

int run_plan_parse(const char *recipe, struct run_plan *out, struct err *err)
{
	json_t *o = json_loads(recipe, 0, NULL);
	const json_t *list;
	size_t i;
	json_t *v;

	*out = (struct run_plan){0};
	if (!json_is_object(o)) {
		json_decref(o);
		return err_text(err, EINVAL, "the release's recipe is damaged");
	}
	out->kind = text_of(o, "kind");
	out->cwd = text_of(o, "cwd");
	out->headers = text_of(o, "headers");
	out->site = text_of(o, "site");
	out->title = text_of(o, "title");
	out->base = text_of(o, "base");
	out->port = (uint16_t)json_integer_value(json_object_get(o, "port"));
	out->timeout_s = (uint32_t)json_integer_value(json_object_get(o, "startup_timeout"));
	list = json_object_get(o, "layers");
	json_array_foreach(list, i, v)
	{
		if (json_is_string(v) && out->nlayers < SANDBOX_MAX_LAYERS)
			out->layers[out->nlayers++] = xstrdup(json_string_value(v));
	}
	list = json_object_get(o, "argv");
	json_array_foreach(list, i, v)
	{
		if (json_is_string(v))
			out->argv = argv_add(out->argv, json_string_value(v));
	}
	json_decref(o);
	return 0;
}

void run_plan_release(struct run_plan *p)
{
	for (size_t i = 0; i < p->nlayers; i++)
		free(p->layers[i]);
	argv_free(p->argv);
	free(p->kind);
	free(p->cwd);
	free(p->headers);
	free(p->site);
	free(p->title);
	free(p->base);
	*p = (struct run_plan){0};
}

/* ---- names for people ---- */

static const char *port_suffix(const struct config *c)
{
	const char *authority = strstr(c->public_url, "://");
	const char *colon;

	authority = authority ? authority + 3 : c->public_url;
	colon = authority[0] == '[' ? strstr(authority, "]:") : strchr(authority, ':');
	if (colon && *colon == ']')
		colon++;
	return colon ? colon : "";
}

char *space_host(const struct config *c, const char *label)
{
	const char *port = port_suffix(c);

	return xasprintf("%s.%s%.*s", label, c->domain, (int)strcspn(port, "/"), port);
}

char *space_url(const struct config *c, const char *label)
{
	cleanup_free char *host = space_host(c, label);
	bool tls = strncmp(c->public_url, "https:", 6) == 0;

	return xasprintf("%s://%s", tls ? "https" : "http", host);
}

/* ---- environment ---- */

static char **env_add(char **env, const char *name, const char *value)
{
	cleanup_free char *line = xasprintf("%s=%s", name, value);

	return argv_add(env, line);
}

static char **platform_env(char **env, const struct unit *u, const struct space *sp, const struct run_plan *plan)
{
	const struct config *c = u->s->config;
	cleanup_free char *host = space_host(c, sp->label);
	char number[32];

	env = env_add(env, "SPACE_ID", u->name);
	env = env_add(env, "SPACE_AUTHOR_NAME", sp->owner);
	env = env_add(env, "SPACE_REPO_NAME", sp->name);
	env = env_add(env, "SPACE_TITLE", plan->title ? plan->title : sp->name);
	env = env_add(env, "SPACE_HOST", host);
	env = env_add(env, "SPACE_CREATOR_USER_ID", sp->owner_id);
	if (c->cpu_milli)
		snprintf(number, sizeof number, "%g", c->cpu_milli / 1000.0);
	else
		snprintf(number, sizeof number, "%ld", sysconf(_SC_NPROCESSORS_ONLN));
	env = env_add(env, "CPU_CORES", number);
	if (c->memory) {
		if (c->memory % (1ULL << 30) == 0)
			snprintf(number, sizeof number, "%lluGi", (unsigned long long)(c->memory >> 30));
		else
			snprintf(number, sizeof number, "%lluMi", (unsigned long long)(c->memory >> 20));
		env = env_add(env, "MEMORY", number);
	}
	env = env_add(env, "ACCELERATOR", "none");
	snprintf(number, sizeof number, "%u", plan->port);
	return env_add(env, "PORT", number);
}

/* Nothing of the daemon's own environment is passed on. */
static char **make_env(const struct unit *u, const struct space *sp, const struct run_plan *plan)
{
	static const char *const always[] = {
	    "PATH=/opt/venv/bin:/app/node_modules/.bin:/home/user/.local/bin:/usr/local/bin:/usr/bin:/bin",
	    "HOME=/home/user",
	    "USER=user",
	    "LANG=C.UTF-8",
	    "PYTHONUNBUFFERED=1",
	    "VIRTUAL_ENV=/opt/venv",
	    "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
	    "REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt",
	    "CURL_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt",
	    "NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt",
	    "NODE_ENV=production",
	    "npm_config_update_notifier=false",
	    "npm_config_cache=/tmp/npm",
	};
	static const char *const gradio[] = {
	    "SYSTEM=spaces",
	    "GRADIO_SERVER_NAME=0.0.0.0",
	    "GRADIO_NUM_PORTS=1",
	    "GRADIO_ALLOW_FLAGGING=never",
	    "GRADIO_THEME=huggingface",
	    "GRADIO_ANALYTICS_ENABLED=False",
	};
	char **env = NULL;

	for (size_t i = 0; i < sizeof always / sizeof *always; i++)
		env = argv_add(env, always[i]);
	/* What is downloaded once stays, as Hugging Face advises for persistent storage. */
	if (sp->storage)
		env = env_add(env_add(env, "PERSISTENT_STORAGE_ENABLED", "true"), "HF_HOME", "/data/.huggingface");
	else
		env = env_add(env, "HF_HOME", "/home/user/.cache/huggingface");
	for (size_t i = 0; plan->kind && strcmp(plan->kind, "gradio") == 0 && i < sizeof gradio / sizeof *gradio; i++)
		env = argv_add(env, gradio[i]);
	return platform_env(env, u, sp, plan);
}

/* ---- the instance ---- */

void space_instance_free(struct instance *in)
{
	health_free(in->health);
	free(in->headers);
	free(in);
}

static void on_health(void *ctx, const char *name, enum health_news news, const char *text)
{
	struct spaces *s = ctx;
	struct instance *in = space_instance(s, name);

	if (!in || in->state != INST_STARTING)
		return;
	cleanup_free char *log = *in->build_id ? logfile_build(s->config, in->build_id) : NULL;
	switch (news) {
	case HEALTH_HINT:
		if (in->extra)
			break; /* the Space runs */
		if (log)
			logfile_append(log, "still waiting: %s\n", text);
		life_say(s, in->unit->id, text);
		break;
	case HEALTH_TIMEOUT:
		life_start_failed(in, text);
		break;
	case HEALTH_OK:
		life_healthy(in);
		break;
	}
}

static uint32_t startup_timeout(const struct config *c, uint32_t asked)
{
	if (!asked)
		return c->startup_timeout_s;
	return asked < c->startup_timeout_max_s ? asked : c->startup_timeout_max_s;
}

struct started {
	struct spaces *s;
	uint32_t timeout_s;
};

static void on_started(void *ctx, const char *name, const struct err *err)
{
	struct started *st = ctx;
	struct spaces *s = st->s;
	struct instance *in = space_instance(s, name);
	uint32_t timeout_s = st->timeout_s;

	free(st);
	if (!in) {
		if (!err)
			place_stop(s->place, name, 0, NULL, NULL);
		return;
	}
	if (in->state == INST_STOPPING) {
		in->up = !err;
		if (err)
			life_gone(in);
		else
			life_stop(in, 0);
		return;
	}
	if (err && err->code == ECONNRESET) {
		/* nobody knows whether it runs: recover stops it; the next attempt has its own name */
		life_start_later(in, 500);
		return;
	}
	if (err) {
		cleanup_free char *text = xasprintf("The sandbox did not start: %s.", err->msg);
		in->exited = true; /* nothing of it is there, so nothing to wait for: it goes at once (battery H5) */
		life_start_failed(in, text);
		return;
	}
	in->up = true;
	cleanup_free char *host = space_host(s->config, in->unit->label);
	in->health = health_begin(s->loop, s->place, name, host, in->port, timeout_s, on_health, s);
}

static struct instance *instance_new(struct unit *u, const struct release *rel, const struct run_plan *plan,
				     uint32_t generation, const char *build_id, bool again)
{
	struct instance *in = xcalloc(1, sizeof *in);

	in->unit = u;
	in->generation = generation;
	snprintf(in->name, sizeof in->name, "app-%s-%u", u->id, generation);
	snprintf(in->release_id, sizeof in->release_id, "%s", rel->id);
	snprintf(in->build_id, sizeof in->build_id, "%s", build_id);
	snprintf(in->commit, sizeof in->commit, "%s", rel->commit);
	in->port = plan->port;
	in->headers = xstrdup(plan->headers ? plan->headers : "");
	in->again = again;
	in->started = io_wall_ms();
	in->began = io_now_ms();
	return in;
}

static int open_run_log(struct spaces *s, const struct instance *in, struct err *err)
{
	cleanup_free char *path = logfile_run(s->config, in->unit->id, in->generation);
	int fd = logfile_open(path);
	char now[32];

	if (fd < 0)
		return err_set(err, -fd, "open `%s`", path);
	logfile_time(now);
	logfile_printf(fd, "===== Application Startup at %s =====\n\n", now);
	return fd;
}

static void free_list(char ***list)
{
	egress_list_free(*list);
}

/* What the operator has said for this Space goes before the configuration; returns its list (owned). A text that is not
 * understood, which only another version can have written, lets nothing out. */
static char **own_egress(const struct space *sp, struct sandbox_spec *spec)
{
	struct err err = ERR_INIT;
	char **list = NULL;

	if (!*sp->egress)
		return NULL;
	if (config_parse_egress(sp->egress, &spec->egress) < 0 ||
	    (spec->egress == EGRESS_LIST && !(list = egress_list_parse(STRZ(sp->egress_list), &err))))
		spec->egress = EGRESS_NONE;
	spec->egress_list = list;
	return list;
}

static void run(struct unit *u, const struct space *sp, struct instance *in, struct run_plan *plan, int log)
{
	const struct config *c = u->s->config;
	cleanup_free char *top = xasprintf("top-%s-%u", u->id, in->generation);
	char target[] = USAGE_DATA;
	struct started *st = xcalloc(1, sizeof *st);
	struct sandbox_spec spec = {
	    .profile = SANDBOX_APP,
	    .id_base = c->id_base ? c->id_base + sp->slot * SANDBOX_IDS : 0,
	    .base = plan->base,
	    .uid = 1000,
	    .gid = 1000,
	    .top = top,
	    .argv = plan->argv,
	    .env = make_env(u, sp, plan),
	    .cwd = plan->cwd,
	    .hostname = sp->label,
	    .egress = c->egress,
	    .egress_list = c->egress_list,
	    .limits = {.bandwidth = c->bandwidth,
		       .memory = c->memory,
		       .cpu_milli = c->cpu_milli,
		       .pids = c->pids,
		       .io_bytes = c->io,
		       .log_bytes = c->log_bytes},
	};

	memcpy(spec.name, in->name, sizeof spec.name);
	cleanup_with(free_list) char **own = own_egress(sp, &spec);
	for (size_t i = 0; i < plan->nlayers; i++)
		spec.layers[spec.nlayers++] = plan->layers[i];
	if (sp->storage) {
		storage_volume(sp, in->data);
		spec.binds[spec.nbinds++] = (struct sandbox_bind){.volume = in->data, .target = target, .write = true};
	}
	st->s = u->s;
	st->timeout_s = startup_timeout(c, plan->timeout_s);
	place_start(u->s->place, &spec, c->disk, sp->storage, log, -1, -1, on_started, st);
	argv_free(spec.env);
}

struct instance *start_instance(struct unit *u, const struct space *sp, const char *release_id, const char *build_id,
				bool again, struct err *err)
{
	struct spaces *s = u->s;
	struct release rel = {0};
	struct run_plan plan = {0};
	uint32_t generation;
	struct instance *in = NULL;

	if (store_release_by_id(s->store, release_id, &rel, err) < 0)
		return NULL;
	if (run_plan_parse(rel.recipe, &plan, err) == 0 && plan.argv && plan.port &&
	    store_space_next_generation(s->store, sp->id, &generation, err) == 0) {
		in = instance_new(u, &rel, &plan, generation, build_id, again);
		cleanup_close int log = open_run_log(s, in, err);
		if (log >= 0) {
			run(u, sp, in, &plan, log);
		} else {
			space_instance_free(in);
			in = NULL;
		}
	} else if (!err->msg[0]) {
		err_text(err, EINVAL, "the release's recipe names no program");
	}
	run_plan_release(&plan);
	release_release(&rel);
	return in;
}
