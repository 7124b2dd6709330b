/* See header.h. What stands between the fences becomes one JSON object (header_yaml.c), then the table `keys` types what we
 * know of it. */
#include "spaced/space/header.h"

#include <ctype.h>
#include <stdarg.h>
#include <string.h>

#include "base/cleanup.h"
#include "spaced/config.h"
#include "spaced/space/header_impl.h"

#define TEXT_MAX 4096 /* bytes of one string value that is used */
#define LIST_MAX 256

static void strings_add(struct strings *l, char *s)
{
	l->v = xreallocarray(l->v, l->n + 1, sizeof *l->v);
	l->v[l->n++] = s;
}

static void strings_release(struct strings *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
	*l = (struct strings){0};
}

void header_warn(struct card *c, const char *fmt, ...)
{
	struct buf b = BUF_INIT;
	va_list ap;

	if (c->warnings.n >= CARD_WARNINGS_MAX)
		return;
	va_start(ap, fmt);
	buf_addv(&b, fmt, ap);
	va_end(ap);
	strings_add(&c->warnings, buf_steal(&b, NULL));
}

/* ---- the block ---- */

static bool fence(struct str line)
{
	size_t n = line.n;

	while (n && (line.p[n - 1] == ' ' || line.p[n - 1] == '\t' || line.p[n - 1] == '\r'))
		n--;
	return n == 3 && memcmp(line.p, "---", 3) == 0;
}

static struct str take_line(struct str *rest)
{
	const char *nl = memchr(rest->p, '\n', rest->n);
	struct str line = {rest->p, nl ? (size_t)(nl - rest->p) : rest->n};
	size_t used = nl ? line.n + 1 : line.n;

	rest->p += used;
	rest->n -= used;
	return line;
}

/* 1: `block` is what lies between the fences; 0: no block; -1: it begins and does not end. */
static int find_block(struct str readme, struct str *block)
{
	if (readme.n >= 3 && memcmp(readme.p, "\xef\xbb\xbf", 3) == 0) {
		readme.p += 3;
		readme.n -= 3;
	}
	if (!fence(take_line(&readme)))
		return 0;
	block->p = readme.p;
	while (readme.n) {
		const char *at = readme.p;
		if (fence(take_line(&readme))) {
			block->n = (size_t)(at - block->p);
			return 1;
		}
	}
	return -1;
}

/* ---- typing ---- */

enum key_type { K_TEXT, K_BOOL, K_UINT, K_LIST, K_DURATION, K_HEADERS };

struct key {
	const char *name;
	enum key_type type;
	size_t offset;
	bool (*check)(struct card *c, const char *key, const char *value); /* false: warned about, leave it out */
	uint32_t min, max;
};

static bool one_of(struct card *c, const char *key, const char *value, const char *const *allowed, size_t n)
{
	cleanup_buf struct buf list = BUF_INIT;

	for (size_t i = 0; i < n; i++) {
		if (strcmp(value, allowed[i]) == 0)
			return true;
		buf_addf(&list, "%s%s", i ? ", " : "", allowed[i]);
	}
	header_warn(c, "`%s: %.60s` is not one of %s", key, value, list.data);
	return false;
}

static bool check_color(struct card *c, const char *key, const char *value)
{
	static const char *const v[] = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"};
	return one_of(c, key, value, v, sizeof v / sizeof *v);
}

static bool check_header(struct card *c, const char *key, const char *value)
{
	static const char *const v[] = {"default", "mini"};
	return one_of(c, key, value, v, 2);
}

static bool check_storage(struct card *c, const char *key, const char *value)
{
	static const char *const v[] = {"small", "medium", "large"};
	return one_of(c, key, value, v, 3);
}

static bool check_short(struct card *c, const char *key, const char *value)
{
	size_t chars = 0;

	for (const char *p = value; *p; p++)
		chars += ((unsigned char)*p & 0xc0) != 0x80;
	if (chars > 60)
		header_warn(c, "`%s` has %zu characters; Hugging Face allows 60", key, chars);
	return true;
}

static bool check_version(struct card *c, const char *key, const char *value)
{
	size_t n = strspn(value, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.+!_-");

	if (n && n <= 40 && !value[n] && isdigit((unsigned char)value[0]))
		return true;
	header_warn(c, "`%s: %.60s` is not a version", key, value);
	return false;
}

static bool check_python(struct card *c, const char *key, const char *value)
{
	size_t n = strspn(value, "0123456789.");

	if (n >= 3 && n <= 12 && !value[n] && strncmp(value, "3.", 2) == 0 && isdigit((unsigned char)value[2]))
		return true;
	header_warn(c, "`%s: %.60s` is not a version such as \"3.11\"", key, value);
	return false;
}

static bool check_path(struct card *c, const char *key, const char *value)
{
	for (const char *p = value; *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f) {
			header_warn(c, "`%s` holds a control character", key);
			return false;
		}
	}
	if (strlen(value) <= 1024)
		return true;
	header_warn(c, "`%s` is too long", key);
	return false;
}

static bool check_base_path(struct card *c, const char *key, const char *value)
{
	if (value[0] == '/' && check_path(c, key, value))
		return true;
	header_warn(c, "`%s: %.60s` must begin with /", key, value);
	return false;
}

#define AT(field) offsetof(struct card, field)
static const struct key keys[] = {
    {"title", K_TEXT, AT(title), NULL, 0, 0},
    {"emoji", K_TEXT, AT(emoji), NULL, 0, 0},
    {"colorFrom", K_TEXT, AT(color_from), check_color, 0, 0},
    {"colorTo", K_TEXT, AT(color_to), check_color, 0, 0},
    {"sdk", K_TEXT, AT(sdk), NULL, 0, 0},
    {"sdk_version", K_TEXT, AT(sdk_version), check_version, 0, 0},
    {"python_version", K_TEXT, AT(python_version), check_python, 0, 0},
    {"app_file", K_TEXT, AT(app_file), check_path, 0, 0},
    {"app_build_command", K_TEXT, AT(app_build_command), NULL, 0, 0},
    {"app_port", K_UINT, AT(app_port), NULL, 1, 65535},
    {"base_path", K_TEXT, AT(base_path), check_base_path, 0, 0},
    {"models", K_LIST, AT(models), NULL, 0, 0},
    {"datasets", K_LIST, AT(datasets), NULL, 0, 0},
    {"tags", K_LIST, AT(tags), NULL, 0, 0},
    {"thumbnail", K_TEXT, AT(thumbnail), NULL, 0, 0},
    {"short_description", K_TEXT, AT(short_description), check_short, 0, 0},
    {"pinned", K_BOOL, AT(pinned), NULL, 0, 0},
    {"fullWidth", K_BOOL, AT(full_width), NULL, 0, 0},
    {"header", K_TEXT, AT(header), check_header, 0, 0},
    {"suggested_hardware", K_TEXT, AT(suggested_hardware), NULL, 0, 0},
    {"suggested_storage", K_TEXT, AT(suggested_storage), check_storage, 0, 0},
    {"startup_duration_timeout", K_DURATION, AT(startup_timeout_s), NULL, 1, 24 * 3600},
    {"custom_headers", K_HEADERS, 0, NULL, 0, 0},
    {"preload_from_hub", K_LIST, AT(preload_from_hub), NULL, 0, 0},
    {"disable_embedding", K_BOOL, AT(disable_embedding), NULL, 0, 0},
    {"hf_oauth", K_BOOL, AT(hf_oauth), NULL, 0, 0},
    {"hf_oauth_scopes", K_LIST, AT(hf_oauth_scopes), NULL, 0, 0},
    {"hf_oauth_expiration_minutes", K_UINT, AT(hf_oauth_expiration_minutes), NULL, 1, 43200},
    {"hf_oauth_authorized_org", K_LIST, AT(hf_oauth_authorized_org), NULL, 0, 0},
    {"license", K_TEXT, AT(license), NULL, 0, 0},
    {"metaTitle", K_TEXT, AT(meta_title), NULL, 0, 0},
    {"description", K_TEXT, AT(description), NULL, 0, 0},
    {"dev-mode-folder", K_TEXT, AT(dev_mode_folder), check_path, 0, 0},
};

/* A scalar as text, also when YAML took it for a number. NULL: not a scalar, or too long. malloc'd. */
static char *as_text(const json_t *v)
{
	if (json_is_string(v) && json_string_length(v) <= TEXT_MAX)
		return xstrdup(json_string_value(v));
	if (json_is_integer(v))
		return xasprintf("%lld", (long long)json_integer_value(v));
	if (json_is_real(v))
		return xasprintf("%g", json_real_value(v));
	return NULL;
}

static void set_text(struct card *c, const struct key *k, const json_t *v)
{
	char **field = (char **)((char *)c + k->offset);
	cleanup_free char *s = as_text(v);

	if (!s)
		header_warn(c, "`%s` must be a text of at most %d bytes", k->name, TEXT_MAX);
	else if (*s && (!k->check || k->check(c, k->name, s)))
		*field = steal_ptr(&s);
}

static void set_bool(struct card *c, const struct key *k, const json_t *v)
{
	bool *field = (bool *)((char *)c + k->offset);

	if (json_is_boolean(v))
		*field = json_boolean_value(v);
	else
		header_warn(c, "`%s` must be true or false", k->name);
}

static void set_number(struct card *c, const struct key *k, const json_t *v)
{
	uint32_t *field = (uint32_t *)((char *)c + k->offset);
	cleanup_free char *s = as_text(v);
	uint32_t n = 0;

	if (s && k->type == K_UINT && header_is_int(s) && s[0] != '-' && strtoll(s, NULL, 10) <= UINT32_MAX)
		n = (uint32_t)strtoll(s, NULL, 10);
	else if (s && k->type == K_DURATION && config_parse_duration(s, &n) < 0)
		n = 0;
	if (n >= k->min && n <= k->max)
		*field = n;
	else if (k->type == K_UINT)
		header_warn(c, "`%s` must be a number from %u to %u", k->name, k->min, k->max);
	else
		header_warn(c, "`%s` must be a time such as 30m or 1h, at most 24h", k->name);
}

static void set_list(struct card *c, const struct key *k, const json_t *v)
{
	struct strings *list = (struct strings *)((char *)c + k->offset);
	size_t n = json_is_array(v) ? json_array_size(v) : 1;

	for (size_t i = 0; i < n && list->n < LIST_MAX; i++) {
		cleanup_free char *s = as_text(json_is_array(v) ? json_array_get(v, i) : v);
		if (s)
			strings_add(list, steal_ptr(&s));
		else
			header_warn(c, "`%s` must be a list of texts", k->name);
	}
}

static void set_headers(struct card *c, const struct key *k, const json_t *v)
{
	static const char *const coep[] = {"unsafe-none", "require-corp", "credentialless"};
	static const char *const coop[] = {"unsafe-none", "same-origin-allow-popups", "same-origin",
					   "noopener-allow-popups"};
	static const char *const corp[] = {"same-site", "same-origin", "cross-origin"};
	const struct {
		const char *name;
		char **field;
		const char *const *allowed;
		size_t n;
	} known[] = {{"cross-origin-embedder-policy", &c->coep, coep, 3},
		     {"cross-origin-opener-policy", &c->coop, coop, 4},
		     {"cross-origin-resource-policy", &c->corp, corp, 3}};
	const char *name;
	json_t *value;

	if (!json_is_object(v)) {
		header_warn(c, "`%s` must be a map", k->name);
		return;
	}
	json_object_foreach((json_t *)v, name, value)
	{
		size_t i = 0;
		while (i < 3 && strcmp(name, known[i].name) != 0)
			i++;
		if (i == 3)
			header_warn(
			    c,
			    "`custom_headers` may hold cross-origin-{embedder,opener,resource}-policy only, not "
			    "`%.60s`",
			    name);
		else if (!json_is_string(value))
			header_warn(c, "`custom_headers`: `%s` must be a text", name);
		else if (one_of(c, name, json_string_value(value), known[i].allowed, known[i].n)) {
			free(*known[i].field);
			*known[i].field = xstrdup(json_string_value(value));
		}
	}
}

static void set_key(struct card *c, const struct key *k, const json_t *v)
{
	switch (k->type) {
	case K_TEXT:
		set_text(c, k, v);
		break;
	case K_BOOL:
		set_bool(c, k, v);
		break;
	case K_UINT:
	case K_DURATION:
		set_number(c, k, v);
		break;
	case K_LIST:
		set_list(c, k, v);
		break;
	case K_HEADERS:
		set_headers(c, k, v);
		break;
	}
}

/* ./x and x are one file. */
static void normalise_path(char *p)
{
	while (p && strncmp(p, "./", 2) == 0)
		memmove(p, p + 2, strlen(p + 2) + 1);
}

int card_parse(struct str readme, struct card *c, struct err *err)
{
	struct str block = {0};

	*c = (struct card){.full_width = true, .hf_oauth_expiration_minutes = 480};
	if (readme.n > CARD_README_MAX)
		readme.n = CARD_README_MAX;
	int found = find_block(readme, &block);
	if (found < 0)
		header_warn(c, "README.md begins with `---` but no second `---` line ends the header");
	if (found <= 0) {
		c->json = json_object();
		return 0;
	}
	c->present = true;
	if (block.n > CARD_BLOCK_MAX)
		return err_set(err, 0, "README.md: the header has %zu bytes; at most %u are read", block.n,
			       CARD_BLOCK_MAX);
	if (header_yaml(block, c, &c->json, err) < 0)
		return -1;
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		const json_t *v = json_object_get(c->json, keys[i].name);
		if (v && !json_is_null(v))
			set_key(c, &keys[i], v);
	}
	normalise_path(c->app_file);
	return 0;
}

void card_release(struct card *c)
{
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		if (keys[i].type == K_TEXT)
			free(*(char **)((char *)c + keys[i].offset));
		else if (keys[i].type == K_LIST)
			strings_release((struct strings *)((char *)c + keys[i].offset));
	}
	free(c->coep);
	free(c->coop);
	free(c->corp);
	strings_release(&c->warnings);
	json_decref(c->json);
	*c = (struct card){0};
}

char *card_json(const struct card *c)
{
	char *s = c->json ? json_dumps(c->json, JSON_COMPACT) : NULL;

	return s ? s : xstrdup("{}");
}

char *card_response_headers(const struct card *c, const char *embedder)
{
	struct buf b = BUF_INIT;

	if (c->coep)
		buf_addf(&b, "cross-origin-embedder-policy: %s\r\n", c->coep);
	if (c->coop)
		buf_addf(&b, "cross-origin-opener-policy: %s\r\n", c->coop);
	if (c->corp)
		buf_addf(&b, "cross-origin-resource-policy: %s\r\n", c->corp);
	if (c->disable_embedding)
		buf_addf(&b, "content-security-policy: frame-ancestors 'self' %s\r\n", embedder);
	return buf_steal(&b, NULL);
}
