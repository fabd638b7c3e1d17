/* Stand-ins for the Jetson elements nvarguscamerasrc and nvvidconv, so that the CSI pipeline of a Jetson runs without one.
 *
 *   gcc -O2 -shared -fPIC csi_plugin.c -o DIR/libgstcsistandin.so \
 *       $(pkg-config --cflags --libs gstreamer-1.0 gstreamer-base-1.0 gstreamer-video-1.0)
 *   GST_PLUGIN_PATH=DIR gst-launch-1.0 …
 *
 * CSI_SENSORS      how many sensors there are (default 1); another one fails as Argus does
 * CSI_DIE_AFTER    frames after which the source fails, as when the cable is pulled
 * CSI_FREEZE_AFTER frames after which every frame is the same
 * CSI_GONE         a file; while it exists there is no sensor, and a source that runs fails
 *
 * "memory:NVMM" buffers are plain memory here; only the caps are those of the real elements.
 */
#include <gst/base/gstbasetransform.h>
#include <gst/base/gstpushsrc.h>
#include <gst/gst.h>
#include <gst/video/video.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PACKAGE "csistandin"
#define SIZES "width=(int)[1,8192], height=(int)[1,8192], framerate=(fraction)[0/1,240/1]"
#define NVMM_NV12 "video/x-raw(memory:NVMM), format=(string)NV12, " SIZES

static guint64 env_number(const char *name, guint64 otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static gboolean is_gone(void)
{
    const char *gone = getenv("CSI_GONE");
    return gone && access(gone, F_OK) == 0;
}

/* GstVideoInfo knows no NVMM memory, so the feature is taken off first. */
static gboolean info_from_caps(GstVideoInfo *info, GstCaps *caps)
{
    GstCaps *plain = gst_caps_copy(caps);
    gst_caps_set_features(plain, 0, gst_caps_features_new("memory:SystemMemory", NULL));
    gboolean good = gst_video_info_from_caps(info, plain);
    gst_caps_unref(plain);
    return good;
}

/* ---- nvarguscamerasrc ------------------------------------------------------------------------------------------ */

typedef struct {
    GstPushSrc parent;
    gint sensor_id;
    guint64 count;
    GstVideoInfo info;
} Argus;
typedef struct {
    GstPushSrcClass parent;
} ArgusClass;
GType argus_get_type(void);
G_DEFINE_TYPE(Argus, argus, GST_TYPE_PUSH_SRC)

static GstStaticPadTemplate argus_src = GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS(NVMM_NV12));

static void argus_set(GObject *object, guint id, const GValue *value, GParamSpec *spec)
{
    ((Argus *)object)->sensor_id = g_value_get_int(value);
}

static void argus_get(GObject *object, guint id, GValue *value, GParamSpec *spec)
{
    g_value_set_int(value, ((Argus *)object)->sensor_id);
}

static gboolean argus_start(GstBaseSrc *base)
{
    Argus *self = (Argus *)base;
    guint64 sensors = is_gone() ? 0 : env_number("CSI_SENSORS", 1);
    self->count = 0;
    if ((guint64)self->sensor_id >= sensors) {
        GST_ELEMENT_ERROR(self, RESOURCE, NOT_FOUND,
            ("Invalid camera device specified %d specified, %d cameras detected", self->sensor_id, (int)sensors), (NULL));
        return FALSE;
    }
    return TRUE;
}

static gboolean argus_set_caps(GstBaseSrc *base, GstCaps *caps)
{
    return info_from_caps(&((Argus *)base)->info, caps);
}

static GstCaps *argus_fixate(GstBaseSrc *base, GstCaps *caps)
{
    caps = gst_caps_make_writable(caps);
    GstStructure *structure = gst_caps_get_structure(caps, 0);
    gst_structure_fixate_field_nearest_int(structure, "width", 1920);
    gst_structure_fixate_field_nearest_int(structure, "height", 1080);
    gst_structure_fixate_field_nearest_fraction(structure, "framerate", 30, 1);
    return GST_BASE_SRC_CLASS(argus_parent_class)->fixate(base, caps);
}

static void wait_until(GstElement *element, GstClockTime running)
{
    GstClock *clock = gst_element_get_clock(element);
    if (!clock)
        return;
    GstClockID id = gst_clock_new_single_shot_id(clock, gst_element_get_base_time(element) + running);
    gst_clock_id_wait(id, NULL);
    gst_clock_id_unref(id);
    gst_object_unref(clock);
}

static GstFlowReturn argus_create(GstPushSrc *push, GstBuffer **out)
{
    Argus *self = (Argus *)push;
    if (is_gone() || self->count >= env_number("CSI_DIE_AFTER", G_MAXUINT64)) {
        GST_ELEMENT_ERROR(self, RESOURCE, READ, ("TIMEOUT / Argus disconnected"), (NULL));
        return GST_FLOW_ERROR;
    }
    gint width = GST_VIDEO_INFO_WIDTH(&self->info), height = GST_VIDEO_INFO_HEIGHT(&self->info);
    gint stride = GST_VIDEO_INFO_PLANE_STRIDE(&self->info, 0);
    guint64 phase = MIN(self->count, env_number("CSI_FREEZE_AFTER", G_MAXUINT64));
    GstBuffer *buffer = gst_buffer_new_allocate(NULL, GST_VIDEO_INFO_SIZE(&self->info), NULL);
    GstMapInfo map;
    gst_buffer_map(buffer, &map, GST_MAP_WRITE);
    memset(map.data, 128, map.size);
    for (gint y = 0; y < height; y++)
        memset(map.data + y * stride, (y * 255 / height + phase) % 256, width);
    gst_buffer_unmap(buffer, &map);

    gint numerator = GST_VIDEO_INFO_FPS_N(&self->info);
    GstClockTime period = gst_util_uint64_scale(GST_SECOND, GST_VIDEO_INFO_FPS_D(&self->info), numerator ? numerator : 30);
    GST_BUFFER_PTS(buffer) = self->count * period;
    GST_BUFFER_DURATION(buffer) = period;
    self->count++;
    wait_until(GST_ELEMENT(self), GST_BUFFER_PTS(buffer));
    *out = buffer;
    return GST_FLOW_OK;
}

static void argus_class_init(ArgusClass *class)
{
    GObjectClass *object = (GObjectClass *)class;
    object->set_property = argus_set;
    object->get_property = argus_get;
    g_object_class_install_property(object, 1,
        g_param_spec_int("sensor-id", "sensor-id", "Set the id of camera sensor to use", 0, 255, 0, G_PARAM_READWRITE));
    gst_element_class_add_static_pad_template((GstElementClass *)class, &argus_src);
    gst_element_class_set_static_metadata((GstElementClass *)class, "Stand-in for NvArgusCameraSrc", "Video/Capture", "test", "jetmask");
    GstBaseSrcClass *base = (GstBaseSrcClass *)class;
    base->start = argus_start;
    base->set_caps = argus_set_caps;
    base->fixate = argus_fixate;
    ((GstPushSrcClass *)class)->create = argus_create;
}

static void argus_init(Argus *self)
{
    gst_base_src_set_live((GstBaseSrc *)self, TRUE);
    gst_base_src_set_format((GstBaseSrc *)self, GST_FORMAT_TIME);
}

/* ---- nvvidconv: NV12 in, BGRx or RGBA out, nearest-neighbour scaling, flip-method 0 to 7, crop -------------------- */

typedef struct {
    GstBaseTransform parent;
    gint flip;
    gint box[4];                                          /* left, right, top, bottom of what is kept; all 0: everything */
    GstVideoInfo in, out;
} Conv;
typedef struct {
    GstBaseTransformClass parent;
} ConvClass;
GType conv_get_type(void);
G_DEFINE_TYPE(Conv, conv, GST_TYPE_BASE_TRANSFORM)

static GstStaticPadTemplate conv_sink = GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS,
    GST_STATIC_CAPS(NVMM_NV12 "; video/x-raw, format=(string)NV12, " SIZES));
static GstStaticPadTemplate conv_src = GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS,
    GST_STATIC_CAPS("video/x-raw, format=(string){ BGRx, RGBA }, " SIZES));

static void conv_set(GObject *object, guint id, const GValue *value, GParamSpec *spec)
{
    Conv *self = (Conv *)object;
    *(id == 1 ? &self->flip : &self->box[id - 2]) = g_value_get_int(value);
}

static void conv_get(GObject *object, guint id, GValue *value, GParamSpec *spec)
{
    Conv *self = (Conv *)object;
    g_value_set_int(value, id == 1 ? self->flip : self->box[id - 2]);
}

static GstCaps *conv_transform_caps(GstBaseTransform *base, GstPadDirection direction, GstCaps *caps, GstCaps *filter)
{
    GstCaps *other = gst_static_pad_template_get_caps(direction == GST_PAD_SINK ? &conv_src : &conv_sink);
    GstCaps *result = gst_caps_new_empty();
    for (guint i = 0; i < gst_caps_get_size(caps); i++) {
        const GValue *rate = gst_structure_get_value(gst_caps_get_structure(caps, i), "framerate");
        GstCaps *copy = gst_caps_copy(other);
        for (guint j = 0; rate && j < gst_caps_get_size(copy); j++)
            gst_structure_set_value(gst_caps_get_structure(copy, j), "framerate", rate);
        result = gst_caps_merge(result, copy);
    }
    gst_caps_unref(other);
    if (filter) {
        GstCaps *common = gst_caps_intersect_full(filter, result, GST_CAPS_INTERSECT_FIRST);
        gst_caps_unref(result);
        result = common;
    }
    return result;
}

static GstCaps *conv_fixate(GstBaseTransform *base, GstPadDirection direction, GstCaps *caps, GstCaps *other)
{
    gint width = 1280, height = 720;
    GstStructure *structure = gst_caps_get_structure(caps, 0);
    gst_structure_get_int(structure, "width", &width);
    gst_structure_get_int(structure, "height", &height);
    if (((Conv *)base)->flip & 1) {
        gint swap = width;
        width = height;
        height = swap;
    }
    other = gst_caps_truncate(gst_caps_make_writable(other));
    structure = gst_caps_get_structure(other, 0);
    gst_structure_fixate_field_nearest_int(structure, "width", width);
    gst_structure_fixate_field_nearest_int(structure, "height", height);
    return gst_caps_fixate(other);
}

static gboolean conv_set_caps(GstBaseTransform *base, GstCaps *in, GstCaps *out)
{
    return info_from_caps(&((Conv *)base)->in, in) && info_from_caps(&((Conv *)base)->out, out);
}

static gboolean conv_unit_size(GstBaseTransform *base, GstCaps *caps, gsize *size)
{
    GstVideoInfo info;
    if (!info_from_caps(&info, caps))
        return FALSE;
    *size = GST_VIDEO_INFO_SIZE(&info);
    return TRUE;
}

/* Which source pixel (u, v) of iw x ih stands at (x, y) of ow x oh; methods as gst-inspect-1.0 nvvidconv lists them. */
static void flipped(int method, int x, int y, int ow, int oh, int iw, int ih, int *u, int *v)
{
    int across = x * iw / ow, down = y * ih / oh;         /* axes kept */
    int across_turned = y * iw / oh, down_turned = x * ih / ow; /* axes exchanged */
    switch (method) {
    case 1: *u = iw - 1 - across_turned; *v = down_turned; break;          /* counterclockwise */
    case 2: *u = iw - 1 - across; *v = ih - 1 - down; break;               /* rotate 180 */
    case 3: *u = across_turned; *v = ih - 1 - down_turned; break;          /* clockwise */
    case 4: *u = iw - 1 - across; *v = down; break;                        /* horizontal flip */
    case 5: *u = iw - 1 - across_turned; *v = ih - 1 - down_turned; break; /* upper right diagonal */
    case 6: *u = across; *v = ih - 1 - down; break;                        /* vertical flip */
    case 7: *u = across_turned; *v = down_turned; break;                   /* upper left diagonal */
    default: *u = across; *v = down;
    }
}

static guint8 clip(int value)
{
    return value < 0 ? 0 : value > 255 ? 255 : value;
}

static GstFlowReturn conv_transform(GstBaseTransform *base, GstBuffer *in, GstBuffer *out)
{
    Conv *self = (Conv *)base;
    GstMapInfo from, to;
    gst_buffer_map(in, &from, GST_MAP_READ);
    gst_buffer_map(out, &to, GST_MAP_WRITE);
    int x0 = self->box[0], y0 = self->box[2];
    int iw = (self->box[1] ? self->box[1] : self->in.width) - x0, ih = (self->box[3] ? self->box[3] : self->in.height) - y0;
    int ow = self->out.width, oh = self->out.height;
    if (x0 < 0 || y0 < 0 || iw <= 0 || ih <= 0 || x0 + iw > self->in.width || y0 + ih > self->in.height)
        return GST_FLOW_ERROR;
    const guint8 *luma = from.data, *chroma = from.data + self->in.offset[1];
    gboolean rgba = GST_VIDEO_INFO_FORMAT(&self->out) == GST_VIDEO_FORMAT_RGBA;
    for (int y = 0; y < oh; y++) {
        guint8 *pixel = to.data + y * self->out.stride[0];
        for (int x = 0; x < ow; x++, pixel += 4) {
            int u, v;
            flipped(self->flip, x, y, ow, oh, iw, ih, &u, &v);
            u += x0;
            v += y0;
            const guint8 *pair = chroma + (v / 2) * self->in.stride[1] + (u & ~1);
            int c = 298 * (luma[v * self->in.stride[0] + u] - 16), cb = pair[0] - 128, cr = pair[1] - 128;
            guint8 red = clip((c + 409 * cr + 128) >> 8), blue = clip((c + 516 * cb + 128) >> 8);
            pixel[0] = rgba ? red : blue;
            pixel[1] = clip((c - 100 * cb - 208 * cr + 128) >> 8);
            pixel[2] = rgba ? blue : red;
            pixel[3] = 255;
        }
    }
    gst_buffer_unmap(in, &from);
    gst_buffer_unmap(out, &to);
    return GST_FLOW_OK;
}

static void conv_class_init(ConvClass *class)
{
    GObjectClass *object = (GObjectClass *)class;
    object->set_property = conv_set;
    object->get_property = conv_get;
    g_object_class_install_property(object, 1,
        g_param_spec_int("flip-method", "flip-method", "video flip methods", 0, 7, 0, G_PARAM_READWRITE));
    static const char *const sides[] = { "left", "right", "top", "bottom" };
    for (guint i = 0; i < 4; i++)
        g_object_class_install_property(object, 2 + i,
            g_param_spec_int(sides[i], sides[i], "Pixels to crop", 0, G_MAXINT, 0, G_PARAM_READWRITE));
    gst_element_class_add_static_pad_template((GstElementClass *)class, &conv_sink);
    gst_element_class_add_static_pad_template((GstElementClass *)class, &conv_src);
    gst_element_class_set_static_metadata((GstElementClass *)class, "Stand-in for nvvidconv", "Filter/Converter/Video/Scaler", "test", "jetmask");
    GstBaseTransformClass *base = (GstBaseTransformClass *)class;
    base->transform_caps = conv_transform_caps;
    base->fixate_caps = conv_fixate;
    base->set_caps = conv_set_caps;
    base->get_unit_size = conv_unit_size;
    base->transform = conv_transform;
}

static void conv_init(Conv *self)
{
}

static gboolean plugin_init(GstPlugin *plugin)
{
    return gst_element_register(plugin, "nvarguscamerasrc", GST_RANK_NONE, argus_get_type())
        && gst_element_register(plugin, "nvvidconv", GST_RANK_NONE, conv_get_type());
}

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, csistandin, "stand-ins for Jetson elements", plugin_init, "1", "LGPL", "jetmask", "jetmask")
