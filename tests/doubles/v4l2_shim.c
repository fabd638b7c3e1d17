/* A V4L2 camera that is not there: an LD_PRELOAD library that answers for one device file.
 *
 *   gcc -O2 -shared -fPIC v4l2_shim.c -o v4l2_shim.so -ldl
 *   LD_PRELOAD=./v4l2_shim.so program /dev/video0
 *
 * SHIM_VIDEO         the device file (default /dev/video0)
 * SHIM_UNPLUG_AFTER  frames after which the camera is gone: ENODEV, as when a USB cable is pulled
 * SHIM_GONE          a file; while it exists, opening the device fails with ENOENT, and an open one is gone as above
 *
 * YUYV, 640x480 or 1280x720, 30 frames/s, memory-mapped streaming: what a webcam does.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define RATE 30
#define SLOTS 32
#define SLOT_BYTES (4u << 20)

static int device[SLOTS]; /* open descriptors of the camera; GStreamer works with a dup() */
static unsigned devices;
static unsigned width = 640, height = 480, sequence;
static unsigned char *memory;
static int queue[SLOTS];
static unsigned queue_in, queue_out;
static struct timespec due;

static unsigned frame_bytes(void) { return width * height * 2; }

static int is_camera(int fd)
{
    for (unsigned i = 0; i < devices; i++)
        if (device[i] == fd)
            return 1;
    return 0;
}

static int is_device(const char *path)
{
    const char *name = getenv("SHIM_VIDEO");
    return path && strcmp(path, name ? name : "/dev/video0") == 0;
}

static int is_gone(void)
{
    const char *gone = getenv("SHIM_GONE");
    return gone && access(gone, F_OK) == 0;
}

static int open_device(void)
{
    if (is_gone()) {
        errno = ENOENT;
        return -1;
    }
    if (devices) {
        errno = EBUSY;
        return -1;
    }
    int fd = memfd_create("v4l2", 0);
    if (fd < 0 || ftruncate(fd, (off_t)SLOTS * SLOT_BYTES) != 0)
        return -1;
    memory = mmap(NULL, (size_t)SLOTS * SLOT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    queue_in = queue_out = sequence = 0;
    device[devices++] = fd;
    return fd;
}

#define REPLACE_OPEN(name)                                                    \
    int name(const char *path, int flags, ...)                                \
    {                                                                         \
        va_list arguments;                                                    \
        va_start(arguments, flags);                                           \
        mode_t mode = va_arg(arguments, int);                                 \
        va_end(arguments);                                                    \
        if (is_device(path))                                                  \
            return open_device();                                             \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);        \
        return real(path, flags, mode);                                       \
    }
REPLACE_OPEN(open)
REPLACE_OPEN(open64)
int __open_2(const char *path, int flags) { return open(path, flags); }
int __open64_2(const char *path, int flags) { return open64(path, flags); }

/* GStreamer asks first whether the path is a character device. */
static void fill_stat(struct stat *about)
{
    memset(about, 0, sizeof *about);
    about->st_mode = S_IFCHR | 0660;
    about->st_rdev = makedev(81, 0);
}

int stat(const char *path, struct stat *about)
{
    if (is_device(path)) {
        fill_stat(about);
        return 0;
    }
    int (*real)(const char *, struct stat *) = dlsym(RTLD_NEXT, "stat");
    return real(path, about);
}

int fstat(int fd, struct stat *about)
{
    if (is_camera(fd)) {
        fill_stat(about);
        return 0;
    }
    int (*real)(int, struct stat *) = dlsym(RTLD_NEXT, "fstat");
    return real(fd, about);
}

int fstat64(int fd, struct stat64 *about)
{
    return fstat(fd, (struct stat *)about); /* the same on 64-bit Linux */
}

int stat64(const char *path, struct stat64 *about)
{
    return stat(path, (struct stat *)about);
}

int close(int fd)
{
    for (unsigned i = 0; i < devices; i++)
        if (device[i] == fd) {
            device[i] = device[--devices];
            if (!devices)
                munmap(memory, (size_t)SLOTS * SLOT_BYTES);
            break;
        }
    int (*real)(int) = dlsym(RTLD_NEXT, "close");
    return real(fd);
}

int dup(int fd)
{
    int (*real)(int) = dlsym(RTLD_NEXT, "dup");
    int copy = real(fd);
    if (copy >= 0 && is_camera(fd) && devices < SLOTS)
        device[devices++] = copy;
    return copy;
}

static int fail(int code)
{
    errno = code;
    return -1;
}

static void describe_format(struct v4l2_format *format, int wish)
{
    struct v4l2_pix_format *pixels = &format->fmt.pix;
    if (wish && pixels->width) {
        width = pixels->width >= 1280 ? 1280 : 640;
        height = width == 1280 ? 720 : 480;
    }
    pixels->width = width;
    pixels->height = height;
    pixels->pixelformat = V4L2_PIX_FMT_YUYV;
    pixels->field = V4L2_FIELD_NONE;
    pixels->bytesperline = width * 2;
    pixels->sizeimage = frame_bytes();
    pixels->colorspace = V4L2_COLORSPACE_SRGB;
}

static int dequeue(struct v4l2_buffer *buffer)
{
    const char *unplug = getenv("SHIM_UNPLUG_AFTER");
    if (is_gone() || (unplug && sequence >= (unsigned)atoi(unplug)))
        return fail(ENODEV);
    if (queue_in == queue_out)
        return fail(EAGAIN);
    due.tv_nsec += 1000000000L / RATE;
    if (due.tv_nsec >= 1000000000L) {
        due.tv_nsec -= 1000000000L;
        due.tv_sec++;
    }
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    int slot = queue[queue_out++ % SLOTS];
    unsigned char *line = memory + (size_t)slot * SLOT_BYTES;
    for (unsigned y = 0; y < height; y++, line += width * 2)
        for (unsigned x = 0; x < width * 2; x += 2) {
            line[x] = (y + sequence) & 255;
            line[x + 1] = 128;
        }
    buffer->index = slot;
    buffer->bytesused = buffer->length = frame_bytes();
    buffer->m.offset = slot * SLOT_BYTES;
    buffer->sequence = sequence++;
    buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    buffer->field = V4L2_FIELD_NONE;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    buffer->timestamp.tv_sec = now.tv_sec;
    buffer->timestamp.tv_usec = now.tv_nsec / 1000;
    return 0;
}

static int answer(unsigned request, void *argument)
{
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *about = argument;
        memset(about, 0, sizeof *about);
        strcpy((char *)about->driver, "shim");
        strcpy((char *)about->card, "Stand-in camera");
        strcpy((char *)about->bus_info, "platform:shim");
        about->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        about->capabilities = V4L2_CAP_DEVICE_CAPS | about->device_caps;
        return 0;
    }
    case VIDIOC_ENUMINPUT: {
        struct v4l2_input *input = argument;
        if (input->index)
            return fail(EINVAL);
        input->type = V4L2_INPUT_TYPE_CAMERA;
        return 0;
    }
    case VIDIOC_G_INPUT:
        *(int *)argument = 0;
        return 0;
    case VIDIOC_S_INPUT:
        return 0;
    case VIDIOC_ENUM_FMT: {
        struct v4l2_fmtdesc *format = argument;
        if (format->index || format->type != V4L2_BUF_TYPE_VIDEO_CAPTURE)
            return fail(EINVAL);
        format->pixelformat = V4L2_PIX_FMT_YUYV;
        return 0;
    }
    case VIDIOC_ENUM_FRAMESIZES: {
        struct v4l2_frmsizeenum *size = argument;
        if (size->index > 1)
            return fail(EINVAL);
        size->type = V4L2_FRMSIZE_TYPE_DISCRETE;
        size->discrete.width = size->index ? 1280 : 640;
        size->discrete.height = size->index ? 720 : 480;
        return 0;
    }
    case VIDIOC_ENUM_FRAMEINTERVALS: {
        struct v4l2_frmivalenum *interval = argument;
        if (interval->index)
            return fail(EINVAL);
        interval->type = V4L2_FRMIVAL_TYPE_DISCRETE;
        interval->discrete.numerator = 1;
        interval->discrete.denominator = RATE;
        return 0;
    }
    case VIDIOC_TRY_FMT:
    case VIDIOC_S_FMT:
    case VIDIOC_G_FMT:
        describe_format(argument, request != VIDIOC_G_FMT);
        return 0;
    case VIDIOC_G_PARM:
    case VIDIOC_S_PARM: {
        struct v4l2_streamparm *parameters = argument;
        parameters->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
        parameters->parm.capture.timeperframe.numerator = 1;
        parameters->parm.capture.timeperframe.denominator = RATE;
        return 0;
    }
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *buffers = argument;
        if (buffers->memory != V4L2_MEMORY_MMAP)
            return fail(EINVAL);
        if (buffers->count > 16)
            buffers->count = 16;
        return 0;
    }
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *buffer = argument;
        buffer->length = frame_bytes();
        buffer->m.offset = buffer->index * SLOT_BYTES;
        buffer->flags = 0;
        return 0;
    }
    case VIDIOC_QBUF:
        queue[queue_in++ % SLOTS] = ((struct v4l2_buffer *)argument)->index;
        ((struct v4l2_buffer *)argument)->flags = V4L2_BUF_FLAG_QUEUED;
        return 0;
    case VIDIOC_DQBUF:
        return dequeue(argument);
    case VIDIOC_STREAMON:
        clock_gettime(CLOCK_MONOTONIC, &due);
        return 0;
    case VIDIOC_STREAMOFF:
        queue_in = queue_out = 0;
        return 0;
    }
    return fail(ENOTTY);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (is_camera(fd)) {
        int result = answer((unsigned)request, argument);
        if (getenv("SHIM_TRACE"))
            fprintf(stderr, "shim: ioctl %u -> %d (%d)\n", (unsigned)request & 0xff, result, result ? errno : 0);
        return result;
    }
    int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
    return real(fd, request, argument);
}
