/* spacectl space ..., spacectl build ..., spacectl release ... */
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/egress_list.h"
#include "spaced/cli/cli.h"

static const char *const space_columns[] = {
    "SPACE=id", "STAGE=runtime.stage", "SDK=sdk", "VISIBILITY=visibility", "MODIFIED=lastModified", "URL=host"};
static const char *const space_fields[] = {
    "Space=id",
    "Stage=runtime.stage",
    "Reason=runtime.errorMessage",
    "Note=runtime.message",
    "URL=host",
    "Domains=spaced.domains",
    "Kind=sdk",
    "Visibility=visibility",
    "Head=sha",
    "Serving=runtime.sha",
    "Release=spaced.release",
    "Base=spaced.base",
    "Stands on=spaced.standsOn",
    "Instance=spaced.live.instance",
    "Instances=spaced.replicas",
    "Started=spaced.live.startedAt",
    "Port=spaced.live.port",
    "Requests=spaced.live.requests",
    "Connections=spaced.live.connections",
    "Memory=usage.memory.summary",
    "CPU=usage.cpu.summary",
    "Processes=usage.processes.summary",
    "Disk=usage.disk.summary",
    "Data=usage.data.summary",
    "Cgroup=usage.cgroup",
    "Sleeps=spaced.sleeps",
    "Storage=spaced.storage:bytes",
    "Egress=spaced.egress.summary",
    "Requests per second=spaced.rate.summary",
    "Received=spaced.traffic.received:bytes",
    "Sent=spaced.traffic.sent:bytes",
    "Branch=spaced.defaultBranch",
    "Created=createdAt",
    "Modified=lastModified",
    "Id=_id",
};
static const char *const build_columns[] = {"BUILD=id",	     "SPACE=space",	"STATE=state",	       "PHASE=phase",
					    "COMMIT=commit", "QUEUED=queuedAt", "FINISHED=finishedAt", "ERROR=error"};
static const char *const build_fields[] = {
    "Build=id",	   "Space=space",	"State=state",	   "Phase=phase",	"Error=error",	      "Commit=commit",
    "Cause=cause", "Position=position", "Queued=queuedAt", "Started=startedAt", "Finished=finishedAt"};
static const char *const release_columns[] = {"RELEASE=id", "CURRENT=current", "COMMIT=commit", "CREATED=createdAt",
					      "BUILD=build"};
static const char *const event_columns[] = {"AT=at", "KIND=kind", "TEXT=text"};
#define N(a) (sizeof(a) / sizeof((a)[0]))

static int show_one(struct cli *c, const char *method, const char *path, const char *const *fields, size_t n)
{
	json_t *j;
	int rc = client_call(c, method, path, NULL, &j);

	if (rc != CLI_OK)
		return rc;
	if (c->json)
		print_json(j);
	else
		print_fields(j, fields, n);
	json_decref(j);
	return CLI_OK;
}

/* ---- Spaces ---- */

static int space_list(struct cli *c)
{
	cleanup_free char *author = c->nwords ? client_segment(c->word[0]) : NULL;
	cleanup_free char *path =
	    xasprintf("/api/spaces?limit=1000%s%s", author ? "&author=" : "", author ? author : "");

	return client_show_list(c, path, space_columns, N(space_columns), "no Spaces yet: a `git push` makes one");
}

static int space_show(struct cli *c)
{
	cleanup_free char *path = client_space_path(c->word[0], "");
	cleanup_free char *usage_path = client_space_path(c->word[0], "/usage");
	json_t *j, *usage;

	if (!path)
		return CLI_USAGE;
	int rc = client_call(c, "GET", path, NULL, &j);
	if (rc != CLI_OK)
		return rc;
	if (client_call(c, "GET", usage_path, NULL, &usage) == CLI_OK)
		json_object_set_new(j, "usage", usage);
	if (c->json)
		print_json(j);
	else
		print_fields(j, space_fields, N(space_fields));
	json_decref(j);
	return CLI_OK;
}

static bool on_terminal(void)
{
	return isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
}

/* Asks on a terminal only: a script that says `space delete` means it. */
static bool sure(struct cli *c, const char *what)
{
	char answer[16];

	if (c->yes || !on_terminal())
		return true;
	fprintf(stderr, "Delete %s of %s? [y/N] ", what, c->word[0]);
	return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

static int space_delete(struct cli *c)
{
	cleanup_free char *path = client_space_path(c->word[0], "");
	const char *slash = strchr(c->word[0], '/');

	if (!path)
		return CLI_USAGE;
	if (!sure(c, "the repository, releases, data and logs"))
		return complain("nothing was deleted");
	cleanup_free char *owner = xstrndup(c->word[0], (size_t)(slash - c->word[0]));
	int rc =
	    client_call(c, "DELETE", "/api/repos/delete",
			json_pack("{s:s, s:s, s:s}", "type", "space", "organization", owner, "name", slash + 1), NULL);
	if (rc != CLI_OK)
		return rc;
	if (c->json)
		printf("{\"deleted\": \"%s\"}\n", path + strlen("/api/spaces/"));
	else
		printf("%s was deleted\n", c->word[0]);
	return CLI_OK;
}

static int change(struct cli *c, const char *rest)
{
	cleanup_free char *path = client_space_path(c->word[0], rest);
	json_t *j;

	if (!path)
		return CLI_USAGE;
	int rc = client_call(c, "POST", path, NULL, &j);
	if (rc != CLI_OK)
		return rc;
	if (c->json)
		print_json(j);
	else
		printf("%s is %s\n", c->word[0], json_string_value(json_object_get(j, "stage")));
	json_decref(j);
	return CLI_OK;
}

static int space_restart(struct cli *c)
{
	return change(c, c->factory ? "/restart?factory=true" : "/restart");
}

static int space_rate(struct cli *c)
{
	cleanup_free char *path = client_space_path(c->word[0], "/rate");
	json_t *j;

	if (!path)
		return CLI_USAGE;
	int rc = client_call(c, "POST", path, json_pack("{s:s}", "rate", c->word[1]), &j);
	if (rc != CLI_OK)
		return rc;
	if (c->json)
		print_json(j);
	else
		printf("%s: requests: %s\n", c->word[0], json_string_value(json_object_get(j, "summary")));
	json_decref(j);
	return CLI_OK;
}

static int space_base(struct cli *c)
{
	cleanup_free char *path = client_space_path(c->word[0], "/base");
	json_t *j;

	if (!path)
		return CLI_USAGE;
	int rc = client_call(c, "POST", path, json_pack("{s:s}", "base", c->word[1]), &j);
	if (rc != CLI_OK)
		return rc;
	if (c->json)
		print_json(j);
	else
		printf("%s stands on %s%s from its next build on; `spacectl space restart %s` builds it now\n",
		       c->word[0], strcmp(c->word[1], "default") == 0 ? "the " : "",
		       strcmp(c->word[1], "default") == 0 ? "default base" : c->word[1], c->word[0]);
	json_decref(j);
	return CLI_OK;
}

static int space_pause(struct cli *c)
{
	return change(c, "/pause");
}

static int sleep_time(struct cli *c)
{
	cleanup_free char *path = client_space_path(c->word[0], "/sleeptime");
	json_t *j;

	if (!path)
		return CLI_USAGE;
	int rc = client_call(c, "POST", path, json_pack("{s:s}", "time", c->word[1]), &j);
	if (rc != CLI_OK)
		return rc;
	if (c->json)
		print_json(j);
	else
		printf("%s: sleep time %s\n", c->word[0], c->word[1]);
	json_decref(j);
	return CLI_OK;
}

static int space_sleep(struct cli *c)
{
	return c->nwords == 2 ? sleep_time(c) : change(c, "/sleep");
}

static int space_wake(struct cli *c)
{
	return change(c, "/wake");
}

static int space_storage(struct cli *c)
{
	cleanup_free char *path = client_space_path(c->word[0], "/storage");
	bool off = strcmp(c->word[1], "off") == 0;

	if (!path)
		return CLI_USAGE;
	/* A word that is easily mistaken: a script, too, has to say that it means it. */
	if (off && ((!c->yes && !on_terminal()) || !sure(c, "all that is in /data")))
		return complain("nothing was deleted%s", on_terminal() ? "" : "; with --yes it would be");
	json_t *body = off ? NULL : json_pack("{s:s}", "size", c->word[1]);
	json_t *j;
	int rc = client_call(c, off ? "DELETE" : "POST", path, body, &j);
	if (rc != CLI_OK)
		return rc;
	if (c->json)
		print_json(j);
	else
		printf("%s: storage %s; the app is %s\n", c->word[0], c->word[1],
		       json_string_value(json_object_get(j, "stage")));
	json_decref(j);
	return CLI_OK;
}

static int space_visibility(struct cli *c)
{
	cleanup_free char *path = client_space_path(c->word[0], "/settings");
	json_t *j;

	if (!path)
		return CLI_USAGE;
	int rc = client_call(c, "PUT", path, json_pack("{s:s}", "visibility", c->word[1]), &j);
	if (rc != CLI_OK)
		return rc;
	if (c->json)
		print_json(j);
	else
		printf("%s is %s\n", c->word[0], json_string_value(json_object_get(j, "visibility")));
	json_decref(j);
	return CLI_OK;
}

static bool is_number(const char *s)
{
	return *s && strspn(s, "0123456789") == strlen(s);
}

static int set_replicas(struct cli *c, json_t *body, const char *what)
{
	cleanup_free char *path = client_space_path(c->word[0], "/replicas");
	json_t *j;

	if (!path) {
		json_decref(body);
		return CLI_USAGE;
	}
	int rc = client_call(c, "POST", path, body, &j);
	if (rc != CLI_OK)
		return rc;
	if (c->json)
		print_json(j);
	else
		printf("%s %s\n", c->word[0], what);
	json_decref(j);
	return CLI_OK;
}

static int space_scale(struct cli *c)
{
	cleanup_free char *what =
	    xasprintf("has %s instance%s from now on", c->word[1], strcmp(c->word[1], "1") ? "s" : "");

	if (!is_number(c->word[1]) || strlen(c->word[1]) > 6) {
		complain("how many instances: a number");
		return CLI_USAGE;
	}
	return set_replicas(c, json_pack("{s:i}", "replicas", atoi(c->word[1])), what);
}

static int space_sticky(struct cli *c)
{
	bool on = strcmp(c->word[1], "on") == 0;

	if (!on && strcmp(c->word[1], "off") != 0) {
		complain("sticky is on or off");
		return CLI_USAGE;
	}
	return set_replicas(c, json_pack("{s:b}", "sticky", on),
			    on ? "keeps each visitor to one instance, by a cookie"
			       : "gives each request to any instance");
}

static int space_egress(struct cli *c)
{
	cleanup_free char *path = client_space_path(c->word[0], "/egress");
	bool listed = strcmp(c->word[1], "list") == 0;
	cleanup_buf struct buf text = BUF_INIT;
	json_t *j, *body;

	if (!path || listed != (c->nwords == 3)) {
		complain("list needs a FILE, the others none");
		return CLI_USAGE;
	}
	int rc = listed ? io_read_named(c->word[2], EGRESS_LIST_BYTES, &text) : 0;
	if (rc < 0)
		return complain("read `%s`: %s", c->word[2], strerror(-rc));
	body = json_pack("{s:s}", "policy", c->word[1]);
	if (listed)
		json_object_set_new(body, "list", json_string(text.data ? text.data : ""));
	if ((rc = client_call(c, "POST", path, body, &j)) != CLI_OK)
		return rc;
	if (c->json)
		print_json(j);
	else
		printf("%s has egress %s, from its next start on; `spacectl space restart %s` makes that now\n",
		       c->word[0], json_string_value(json_object_get(j, "summary")), c->word[0]);
	json_decref(j);
	return CLI_OK;
}

/* --json: one object a line, {"data": "..."}. */
static void print_log_line(const char *p, size_t n)
{
	json_t *text = json_stringn(p, n);
	json_t *j = json_pack("{s:o}", "data", text ? text : json_string("(not UTF-8)"));

	print_json_line(j);
	json_decref(j);
}

static struct buf log_line; /* whose end has not come yet */

static void sink_json(const char *p, size_t n)
{
	char *nl;

	buf_add(&log_line, p, n);
	while (log_line.len && (nl = memchr(log_line.data, '\n', log_line.len))) {
		print_log_line(log_line.data, (size_t)(nl - log_line.data));
		buf_consume(&log_line, (size_t)(nl - log_line.data) + 1);
	}
	fflush(stdout);
}

static int logs(struct cli *c, const char *kind, const char *build)
{
	cleanup_free char *rest = NULL, *path = NULL;

	if (c->tail && !is_number(c->tail)) {
		complain("--tail needs a number");
		return CLI_USAGE;
	}
	rest = xasprintf("/logs/%s?follow=%d%s%s%s%s", kind, c->follow, c->tail ? "&tail=" : "", c->tail ? c->tail : "",
			 build ? "&build=" : "", build ? build : "");
	path = client_space_path(c->word[0], rest);
	if (!path)
		return CLI_USAGE;
	int rc = (c->follow ? client_follow : client_stream)(c, path, c->json ? sink_json : print_harmless);
	if (log_line.len) /* the log ends without a newline */
		print_log_line(log_line.data, log_line.len);
	buf_release(&log_line);
	return rc;
}

static int space_logs(struct cli *c)
{
	return logs(c, c->build ? "build" : "run", NULL);
}

static int space_events(struct cli *c)
{
	cleanup_free char *path = client_space_path(c->word[0], "/events?limit=500");

	return path ? client_show_list(c, path, event_columns, N(event_columns), "nothing has happened yet")
		    : CLI_USAGE;
}

/* ---- builds ---- */

static int build_list(struct cli *c)
{
	cleanup_free char *rest = NULL, *path = NULL;

	if (c->limit && !is_number(c->limit)) {
		complain("--limit needs a number");
		return CLI_USAGE;
	}
	rest = xasprintf("/builds?limit=%s", c->limit ? c->limit : "50");
	path = c->nwords ? client_space_path(c->word[0], rest) : xasprintf("/api/admin%s", rest);
	return path ? client_show_list(c, path, build_columns, N(build_columns), "no builds yet") : CLI_USAGE;
}

static int build_show(struct cli *c)
{
	cleanup_free char *id = client_segment(c->word[0]), *path = xasprintf("/api/builds/%s", id);

	return show_one(c, "GET", path, build_fields, N(build_fields));
}

static int build_cancel(struct cli *c)
{
	cleanup_free char *id = client_segment(c->word[0]), *path = xasprintf("/api/builds/%s/cancel", id);

	return show_one(c, "POST", path, build_fields, N(build_fields));
}

/* The Space is found by the build. */
static int build_logs(struct cli *c)
{
	cleanup_free char *id = client_segment(c->word[0]), *path = xasprintf("/api/builds/%s", id);
	json_t *j;
	int rc = client_call(c, "GET", path, NULL, &j);

	if (rc != CLI_OK)
		return rc;
	c->word[0] = json_string_value(json_object_get(j, "space"));
	rc = logs(c, "build", id);
	json_decref(j);
	return rc;
}

static int release_list(struct cli *c)
{
	cleanup_free char *path = client_space_path(c->word[0], "/releases");

	return path ? client_show_list(c, path, release_columns, N(release_columns), "no releases yet") : CLI_USAGE;
}

#define SPACE "OWNER/NAME"
const struct verb space_verbs[] = {
    {"space", "list", "[OWNER]", 0, 1, NULL, "all Spaces, newest first", space_list},
    {"space", "show", SPACE, 1, 1, NULL, "stage, address, commit, what runs", space_show},
    {"space", "logs", SPACE, 1, 1, "build follow tail", "the app's output", space_logs},
    {"space", "restart", SPACE, 1, 1, "factory", "start it again, also when it was paused", space_restart},
    {"space", "pause", SPACE, 1, 1, NULL, "stop it until somebody restarts it", space_pause},
    {"space", "sleep", SPACE " [TIME|never|default]", 1, 2, NULL,
     "stop it until somebody visits it; with TIME: do so by itself after so long without a visit\n\n"
     "TIME is such as 30m, 12h or 2d; `never` also means that it is not frozen; `default` is the host's sleep-after.",
     space_sleep},
    {"space", "wake", SPACE, 1, 1, NULL, "as a visit would", space_wake},
    {"space", "storage", SPACE " SIZE|off", 2, 2, "yes",
     "persistent storage at /data: make it, make it larger, or delete it with its data", space_storage},
    {"space", "scale", SPACE " N", 2, 2, NULL, "run N instances of it, over which requests are balanced", space_scale},
    {"space", "sticky", SPACE " on|off", 2, 2, NULL, "whether a visitor keeps to one of its instances", space_sticky},
    {"space", "visibility", SPACE " public|protected|private", 2, 2, NULL,
     "who may open it: everybody; everybody, but its source is the owner's; its owner and admins only",
     space_visibility},
    {"space", "egress", SPACE " POLICY [FILE]", 2, 3, NULL,
     "what it may reach: none, internet, list FILE, or default (the host's)", space_egress},
    {"space", "rate", SPACE " N|none|default", 2, 2, NULL,
     "how many requests per second it may get; default: as space-rate says", space_rate},
    {"space", "base", SPACE " BASE|host|default", 2, 2, NULL,
     "what it stands on, from its next build on\n\n"
     "A base of `spacectl base list`, `host` for the host's /usr, `default` for what `spacectl base default` says. "
     "Its\n"
     "dependencies are built anew, on that base.",
     space_base},
    {"space", "delete", SPACE, 1, 1, "yes", "delete it with its repository, releases and logs", space_delete},
    {"space", "events", SPACE, 1, 1, NULL, "what happened to it, newest first", space_events},
    {0},
};
const struct verb build_verbs[] = {
    {"build", "list", "[OWNER/NAME]", 0, 1, "limit", "builds, newest first", build_list},
    {"build", "show", "ID", 1, 1, NULL, "one build", build_show},
    {"build", "logs", "ID", 1, 1, "follow tail", "its log", build_logs},
    {"build", "cancel", "ID", 1, 1, NULL, "stop a queued or running build", build_cancel},
    {"release", "list", SPACE, 1, 1, NULL, "what builds have made, newest first", release_list},
    {0},
};
