/* See json.h. */
#include "spaced/api/json.h"

#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/cleanup.h"

json_t *json_date(uint64_t wall_ms)
{
	char text[40];
	time_t t = (time_t)(wall_ms / 1000);
	struct tm tm;
	size_t n;

	if (!wall_ms || !gmtime_r(&t, &tm))
		return json_null();
	n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + n, sizeof(text) - n, ".%03uZ", (unsigned)(wall_ms % 1000));
	return json_string(text);
}

/* Names and messages may hold bytes of outsiders; json_string refuses what is no UTF-8, and null is better than a lost
 * answer. */
static json_t *text(const char *s)
{
	json_t *j = json_string(s ? s : "");

	return j ? j : json_string("(not UTF-8)");
}

json_t *json_text_or_null(const char *s)
{
	return s && *s ? text(s) : json_null();
}

char *json_host_url(const struct space_view *v, const char *host)
{
	const char *sep = strstr(v->public_url, "://"), *apex = sep ? sep + 3 : v->public_url;
	size_t scheme = sep ? (size_t)(sep - v->public_url) : 4, n = strcspn(apex, "/");
	const char *port = "";
	size_t port_len = 0;

	/* The last colon behind any "]" of an IPv6 address. */
	for (size_t i = n; i-- > 0 && apex[i] != ']';)
		if (apex[i] == ':') {
			port = apex + i;
			port_len = n - i;
			break;
		}
	return xasprintf("%.*s://%s%.*s", (int)scheme, sep ? v->public_url : "http", host, (int)port_len, port);
}

char *json_app_url(const struct space_view *v, const char *label)
{
	cleanup_free char *host = xasprintf("%s.%s", label, v->domain);

	return json_host_url(v, host);
}

static bool serves(enum space_stage st)
{
	return st == STAGE_RUNNING || st == STAGE_RUNNING_BUILDING || st == STAGE_RUNNING_APP_STARTING;
}

static bool is_error(enum space_stage st)
{
	return st == STAGE_NO_APP_FILE || st == STAGE_CONFIG_ERROR || st == STAGE_BUILD_ERROR ||
	       st == STAGE_RUNTIME_ERROR;
}

/* Hugging Face's tiers: small 20 GB, medium 150 GB, large 1 TB. A size of ours is called by the tier that holds it. */
static const struct {
	const char *name;
	uint64_t bytes;
} tiers[] = {{"small", 20ULL << 30}, {"medium", 150ULL << 30}, {"large", 1ULL << 40}};
#define TIERS (sizeof(tiers) / sizeof(tiers[0]))

uint64_t json_storage_bytes(const char *tier)
{
	for (size_t i = 0; i < TIERS; i++)
		if (!strcmp(tiers[i].name, tier))
			return tiers[i].bytes;
	return 0;
}

static const char *tier_of(uint64_t bytes)
{
	size_t i = 0;

	while (i + 1 < TIERS && bytes > tiers[i].bytes)
		i++;
	return bytes ? tiers[i].name : NULL;
}

/* Seconds without a visit until it is stopped; null: never. */
static json_t *sleep_json(const struct space *sp, const struct space_view *v)
{
	int64_t s = sp->sleep_s ? sp->sleep_s : (int64_t)v->sleep_after_s;

	return s > 0 && strcmp(sp->sdk, "static") != 0 ? json_integer(s) : json_null();
}

json_t *json_runtime(const struct space *sp, const struct space_view *v)
{
	bool live = serves(sp->stage), still = !strcmp(sp->sdk, "static");
	cleanup_free char *url = json_app_url(v, sp->label);
	json_t *hardware, *replicas, *j;

	/* `hardware` is always an object: null makes huggingface_hub stumble. Nothing runs for a static Space. */
	hardware = json_pack("{s:s?, s:s?}", "current", live && !still ? "cpu-basic" : NULL, "requested",
			     still ? NULL : "cpu-basic");
	replicas = json_pack("{s:i, s:i}", "current", live ? (still || !v->instances ? 1 : (int)v->instances) : 0,
			     "requested", sp->stage == STAGE_PAUSED ? 0 : (int)sp->replicas);
	j = json_pack("{s:s, s:o, s:s?, s:o, s:o, s:b, s:[]}", "stage", space_stage_name(sp->stage), "hardware",
		      hardware, "storage", tier_of(sp->storage), "gcTimeout", sleep_json(sp, v), "replicas", replicas,
		      "devMode", 0, "volumes");
	json_object_set_new(j, "domains",
			    json_pack("[{s:s, s:s}]", "domain", strstr(url, "://") + 3, "stage", "READY"));
	if (sp->stage_message && *sp->stage_message)
		json_object_set_new(j, is_error(sp->stage) ? "errorMessage" : "message", text(sp->stage_message));
	if (live && v->serving)
		json_object_set_new(j, "sha", text(v->serving));
	if (*sp->sdk)
		json_object_set_new(j, "sdk", text(sp->sdk));
	return j;
}

static void add_tag(json_t *tags, const char *prefix, const char *value)
{
	cleanup_free char *tag = xasprintf("%s%s", prefix, value);

	if (*value)
		json_array_append_new(tags, text(tag));
}

static json_t *tags_of(const struct space *sp, json_t *card)
{
	json_t *tags = json_array(), *own = json_object_get(card, "tags"), *tag;
	const char *license = json_string_value(json_object_get(card, "license"));
	size_t i;

	add_tag(tags, "", sp->sdk);
	json_array_foreach(own, i, tag) if (json_is_string(tag) && i < 100) add_tag(tags, "", json_string_value(tag));
	if (license)
		add_tag(tags, "license:", license);
	return tags;
}

json_t *json_space(const struct space *sp, const struct space_view *v)
{
	cleanup_free char *id = xasprintf("%s/%s", sp->owner, sp->name);
	cleanup_free char *url = json_app_url(v, sp->label);
	json_t *card = json_loads(sp->card, 0, NULL), *j;
	static const char *const lists[] = {"models", "datasets"};

	if (!json_is_object(card)) {
		json_decref(card);
		card = json_object();
	}
	j = json_pack("{s:s, s:s, s:s, s:b, s:b, s:b, s:i, s:s, s:s}", "_id", sp->id, "id", id, "author", sp->owner,
		      "private", sp->visibility != SPACE_PUBLIC, "gated", 0, "disabled", 0, "likes", 0, "subdomain",
		      sp->label, "host", url);
	json_object_set_new(j, "visibility", json_string(space_visibility_name(sp->visibility)));
	json_object_set_new(j, "sdk", json_text_or_null(sp->sdk));
	json_object_set_new(j, "sha", json_text_or_null(v->sha));
	json_object_set_new(j, "createdAt", json_date(sp->created));
	json_object_set_new(j, "lastModified", json_date(sp->modified));
	json_object_set_new(j, "tags", tags_of(sp, card));
	for (size_t i = 0; i < 2; i++)
		if (json_is_array(json_object_get(card, lists[i])))
			json_object_set(j, lists[i], json_object_get(card, lists[i]));
	json_object_set_new(j, "runtime", json_runtime(sp, v));
	json_object_set_new(j, "cardData", card);
	return j;
}

/* huggingface_hub hf_api.py, ExpandSpaceProperty_T, and `xetEnabled`, which versions 0.30 to 0.35 ask for. */
static const char *const fields_known[] = {
    "author",  "cardData",	"createdAt",	 "datasets",   "disabled", "lastModified", "likes",    "models",
    "private", "region",	"resourceGroup", "runtime",    "sdk",	   "sha",	   "siblings", "subdomain",
    "tags",    "trendingScore", "usedStorage",	 "xetEnabled", "host",	   "gated"};
const char json_space_fields[] =
    "author, cardData, createdAt, datasets, disabled, lastModified, likes, models, private,"
    " region, resourceGroup, runtime, sdk, sha, siblings, subdomain, tags, trendingScore,"
    " usedStorage";

static bool listed(const char *const *list, size_t n, const char *s)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(list[i], s))
			return true;
	return false;
}

bool json_space_expand(json_t *space, const char *const *fields, size_t n, const char **bad)
{
	const char *key;
	json_t *value;
	void *tmp;

	for (size_t i = 0; i < n; i++)
		if (!listed(fields_known, sizeof(fields_known) / sizeof(fields_known[0]), fields[i])) {
			*bad = fields[i];
			return false;
		}
	json_object_foreach_safe(space, tmp, key, value) if (strcmp(key, "id") != 0 && strcmp(key, "_id") != 0 &&
							     !listed(fields, n, key)) json_object_del(space, key);
	if (listed(fields, n, "xetEnabled"))
		json_object_set_new(space, "xetEnabled", json_false());
	return true;
}

json_t *json_user(const struct user *u)
{
	json_t *j = json_pack("{s:s, s:s, s:b}", "id", u->id, "name", u->name, "admin", u->admin);

	json_object_set_new(j, "createdAt", json_date(u->created));
	return j;
}

json_t *json_whoami(const struct user *u, const char *endpoint)
{
	/* Root on the admin socket has no account; clients want an id all the same. */
	const char *id = *u->id ? u->id : "000000000000000000000000";
	cleanup_free char *avatar = xasprintf("%s/assets/favicon.svg", endpoint);
	json_t *token = json_pack("{s:s, s:s, s:o}", "displayName", "spaced", "role", "write", "createdAt",
				  json_date(u->created ? u->created : 1));
	json_t *auth = json_pack("{s:s, s:o}", "type", "access_token", "accessToken", token);

	return json_pack("{s:s, s:s, s:s, s:s, s:n, s:b, s:b, s:n, s:b, s:b, s:s, s:[], s:o}", "type", "user", "id", id,
			 "name", u->name, "fullname", u->name, "email", "emailVerified", 0, "canPay", 0, "periodEnd",
			 "isPro", 0, "isAdmin", u->admin, "avatarUrl", avatar, "orgs", "auth", auth);
}

json_t *json_token(const struct token *t, const char *user)
{
	json_t *j = json_pack("{s:s, s:s, s:s}", "id", t->id, "user", user, "prefix", t->prefix);

	json_object_set_new(j, "label", text(t->label));
	json_object_set_new(j, "createdAt", json_date(t->created));
	json_object_set_new(j, "lastUsed", json_date(t->last_used));
	return j;
}

json_t *json_build(const struct build *b, const char *space, unsigned position)
{
	json_t *j = json_pack("{s:s, s:s, s:s}", "id", b->id, "commit", b->commit, "state", build_state_name(b->state));

	json_object_set_new(j, "space", json_text_or_null(space));
	json_object_set_new(j, "cause", text(b->cause));
	json_object_set_new(j, "phase", text(b->phase));
	json_object_set_new(j, "error", json_text_or_null(b->error));
	json_object_set_new(j, "queuedAt", json_date(b->queued));
	json_object_set_new(j, "startedAt", json_date(b->started));
	json_object_set_new(j, "finishedAt", json_date(b->finished));
	json_object_set_new(j, "position", position ? json_integer(position) : json_null());
	return j;
}

json_t *json_release(const struct release *r, bool current)
{
	json_t *j = json_pack("{s:s, s:s, s:s, s:b}", "id", r->id, "build", r->build_id, "commit", r->commit, "current",
			      current);
	json_t *recipe = json_loads(r->recipe, 0, NULL);

	json_object_set_new(j, "createdAt", json_date(r->created));
	json_object_set_new(j, "recipe", recipe ? recipe : json_null());
	return j;
}

json_t *json_event(const struct event *e)
{
	json_t *j = json_pack("{s:I, s:o, s:s}", "id", (json_int_t)e->id, "at", json_date(e->at), "kind", e->kind);

	json_object_set_new(j, "text", text(e->text));
	json_object_set_new(j, "space", json_text_or_null(e->space_id));
	json_object_set_new(j, "actor", json_text_or_null(e->actor_id));
	return j;
}

json_t *json_live(const struct space_live *l)
{
	return json_pack("{s:s, s:o, s:s, s:i, s:I, s:I}", "instance", l->instance, "startedAt", json_date(l->started),
			 "commit", l->commit, "port", (int)l->port, "requests", (json_int_t)l->requests, "connections",
			 (json_int_t)l->open_connections);
}
