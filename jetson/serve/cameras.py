"""What is watched: a camera's settings and its address; and the change from some cameras to others while it runs."""

from typing import Dict, List, Sequence

from jetson.alerts.settings import AlertSettings, check
from jetson.bundle.classes import Classes
from jetson.inference.runner import View
from jetson.monitor import drift
from jetson.serve.results import record
from jetson.serve.service import Service
from jetson.serve.settings import Settings
from jetson.serve.watched import Watched
from jetson.tracking.zones import Counter


def change(service: Service, wanted: Sequence[Watched]) -> List[str]:
    """Watch these cameras from now on; what was done, in words.

    Cameras are known by their names. One of which nothing has changed goes on undisturbed, with its tracks and counts;
    one with other lines, zones, score or privacy is not started anew; one that is read in another way is, and its
    counts go on. In the thread of the reload.
    """
    done: List[str] = []
    runner, names = service.runner, {one.settings.name for one in wanted}
    views = {view.name: view for view in runner.views}
    for one in wanted:
        name, was = one.settings.name, one.settings.was
        if was in views and name not in views and was not in names:
            view = views[name] = views.pop(was)
            _rename(service, view, one)
            done.append(f"{was} is called {name} now")
    for name, view in views.items():
        if name not in names:
            _remove(service, view)
            done.append(f"{name} is no longer watched")
    order: List[View] = []
    for one in wanted:
        known = views.get(one.settings.name)
        if known is None:
            order.append(_add(service, one))
            done.append(f"{one.settings.name} is watched now")
        else:
            order.append(known)
            done += _update(service, known, one)
    runner.arrange(order)
    if service.drift is not None:
        service.drift.arrange([view.camera.index for view in order])
    if done and service.mqtt is not None:
        service.mqtt.cameras = places_of(order)
    return done


def places_of(views: Sequence[View]) -> List[Dict[str, object]]:
    """What MQTT is to announce: each camera's name and those of its lines and zones."""
    return [dict(view.zones.names(), name=view.name) for view in views]


def _known(one: Watched) -> drift.Known:
    return drift.known_as(one.source, one.settings.was)


def _rename(service: Service, view: View, one: Watched) -> None:
    service.counts.forget(view)
    if service.alerts is not None:
        service.alerts.rename(view.key, one.settings.name)
    view.camera.source = view.camera.source._replace(name=one.settings.name)
    view.name = one.settings.name
    before = service.watched[view.camera.index]
    service.watched[view.camera.index] = before._replace(
        settings=before.settings._replace(name=view.name), source=before.source._replace(name=view.name)
    )
    if service.drift is not None:
        service.drift.rename(view.camera.index, _known(one))


def _remove(service: Service, view: View) -> None:
    number = view.camera.index
    service.runner.remove(view)
    service.counts.keep([view])
    service.watched.pop(number, None)
    service.studio.forget(number)
    service.site.pictures.forget(number)
    if service.recorder is not None:
        service.recorder.forget(number)
    if service.alerts is not None:
        service.alerts.forget(view.key)
    if service.drift is not None:
        service.drift.remove(number)


def _add(service: Service, one: Watched) -> View:
    settings = one.settings
    classes = service.status.manifest.class_list
    counter = Counter(settings.zones, classes.names)
    view = service.runner.make(one.source, counter, settings.score)
    number = view.camera.index
    service.counts.go_on(view, settings.was)
    service.watched[number] = one
    service.studio.film(number, settings.blur, settings.score)
    _film(service, number, one)
    if service.drift is not None:
        service.drift.add(number, _known(one))
    service.runner.add(view)
    return view


def _update(service: Service, view: View, one: Watched) -> List[str]:
    number, settings = view.camera.index, one.settings
    before = service.watched[number]
    service.watched[number] = one
    done = []
    if before.source != one.source or not before.settings.same_frames(settings):
        service.runner.restart(view, one.source)
        if service.drift is not None:
            service.drift.rename(number, _known(one))
        done.append(f"{settings.name} is opened again")
    if before.settings.shown() != settings.shown():
        service.runner.set_score(view, settings.score)
        service.studio.film(number, settings.blur, settings.score)
        _film(service, number, one)
        done.append(f"{settings.name}: score threshold or privacy changed")
    counter = Counter(settings.zones, view.classes.names)
    if not counter.same_places(view.zones):
        replace_zones(service, view, counter)
        done.append(f"{settings.name} has other lines and zones")
    return done


def _film(service: Service, number: int, one: Watched) -> None:
    if service.recorder is not None:
        pictures = pictures_of(service.settings, one)
        service.recorder.film(number, pictures, one.settings.clips, one.settings.score)


def pictures_of(settings: Settings, one: Watched) -> str:
    """What is kept of a camera's events: off, crop, frame."""
    return one.settings.pictures or settings.kept.pictures


def privacy_of(settings: Settings, cameras: Sequence[Watched], recorded: bool = True) -> Dict[str, bool]:
    """What the page says about pictures; `recorded`: whether there is a place for those that are stored."""
    kept = {pictures_of(settings, one) for one in cameras}
    clips = settings.kept.clips.seconds > 0 and any(one.settings.clips for one in cameras)
    return {
        "faces_blurred": settings.blur_faces or all(one.settings.blur for one in cameras),
        "frames_stored": recorded and ("frame" in kept or clips),
        "pictures_stored": recorded and kept != {"off"},
        "crops_kept": settings.crops,
    }


def check_alerts(asked: AlertSettings, cameras: Sequence[Watched], classes: Classes) -> None:
    """BadInput where a rule names a camera, a zone or a class that these do not have."""
    zones = {one.settings.name: [zone.name for zone in one.settings.zones if zone.kind == "polygon"] for one in cameras}
    check(asked, list(zones), zones, classes)


def replace_zones(service: Service, view: View, counter: Counter) -> None:
    """Count at other lines and zones; counts go on under the same names."""
    with view.tracking:  # no frame is counted in between
        left = counter.go_on_from(view.zones)
        view.zones = counter
    record(service.journal, view, [], left, recorder=service.recorder)
