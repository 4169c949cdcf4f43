() => {
  // Licensed under the Apache License, Version 2.0.
  // Timelines that play and zoom, with the player of the page. Gradio calls this function once, when the page is loaded.
  const MAX_ZOOM = 64, MIN_TICK_PIXELS = 64;
  let stopAt = Infinity;

  const player = () => document.querySelector("#player audio[src]");
  const figures = () => [...document.querySelectorAll("figure.timeline")].filter((figure) => figure.offsetParent);

  function play(start, end) {
    const audio = player();
    if (!audio) return;
    stopAt = end;
    audio.currentTime = start;
    // The player itself says so when the browser cannot play a format.
    audio.play().catch(() => {});
  }

  function clock(seconds, step) {
    if (seconds < 60 && step < 60) return `${+seconds.toFixed(2)}`;
    const [hours, minutes, rest] = [seconds / 3600, (seconds / 60) % 60, seconds % 60].map(Math.floor);
    const two = (number) => String(number).padStart(2, "0");
    return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
  }

  function drawAxis(figure) {
    const axis = figure.querySelector(".axis"), seconds = +figure.dataset.seconds;
    if (!axis.clientWidth) return;
    const steps = JSON.parse(figure.dataset.steps);
    const step = steps.find((step) => (step / seconds) * axis.clientWidth >= MIN_TICK_PIXELS) ?? seconds;
    axis.replaceChildren();
    for (let time = 0; time <= seconds - step / 3; time += step) {
      const tick = document.createElement("span");
      tick.textContent = clock(time, step) + (time === 0 && seconds < 60 ? " s" : "");
      tick.style.left = `${(100 * time) / seconds}%`;
      axis.append(tick);
    }
  }

  function zoom(figure, factor) {
    const scroll = figure.querySelector(".scroll"), track = figure.querySelector(".track");
    const before = +figure.style.getPropertyValue("--zoom") || 1;
    const after = Math.min(MAX_ZOOM, Math.max(1, factor * before));
    const gutter = figure.querySelector(".axis").offsetLeft;
    const middle = (scroll.scrollLeft + (scroll.clientWidth - gutter) / 2) / (track.clientWidth - gutter);
    figure.style.setProperty("--zoom", after);
    scroll.scrollLeft = middle * (track.clientWidth - gutter) - (scroll.clientWidth - gutter) / 2;
    drawAxis(figure);
  }

  function moveCursors() {
    const audio = player();
    if (!audio) return;
    if (audio.currentTime >= stopAt) {
      stopAt = Infinity;
      audio.pause();
    }
    const time = audio.currentTime;
    for (const figure of figures()) {
      const cursor = figure.querySelector(".cursor"), axis = figure.querySelector(".axis");
      const scroll = figure.querySelector(".scroll");
      cursor.hidden = time === 0 && audio.paused;
      const left = axis.offsetLeft + (axis.clientWidth * time) / +figure.dataset.seconds;
      cursor.style.left = `${left}px`;
      const visible = left - scroll.scrollLeft;
      if (!audio.paused && (visible < axis.offsetLeft || visible > scroll.clientWidth)) {
        scroll.scrollLeft = left - scroll.clientWidth / 4;
      }
    }
    for (const button of document.querySelectorAll(".bars button")) {
      const inside = !audio.paused && time >= +button.dataset.start && time < +button.dataset.end;
      button.classList.toggle("playing", inside);
    }
    if (!audio.paused) requestAnimationFrame(moveCursors);
  }

  // One stop of the Tab key for all bars of a timeline: arrow keys go from one to the next.
  const inOrder = (lanes) => [...lanes.querySelectorAll("button")].sort((a, b) => a.dataset.start - b.dataset.start);

  function prepare(figure) {
    figure.dataset.ready = "";
    const lanes = figure.querySelector(".lanes");
    if (lanes) inOrder(lanes).forEach((button, index) => (button.tabIndex = index ? -1 : 0));
    drawAxis(figure);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-start]");
    if (button) play(+button.dataset.start, +button.dataset.end);
    const zoomed = event.target.closest("button[data-zoom]");
    if (zoomed) zoom(zoomed.closest("figure"), +zoomed.dataset.zoom);
    const picture = event.target.closest(".timeline img");
    if (picture) {
      const axis = picture.closest("figure").querySelector(".axis").getBoundingClientRect();
      const seconds = +picture.closest("figure").dataset.seconds;
      play((seconds * (event.clientX - axis.left)) / axis.width, Infinity);
    }
  });

  document.addEventListener("keydown", (event) => {
    const lanes = event.target.closest?.(".lanes");
    const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
    if (!lanes || !(event.key in moves)) return;
    event.preventDefault();
    const buttons = inOrder(lanes), before = buttons.indexOf(event.target);
    const after = buttons[Math.min(buttons.length - 1, Math.max(0, before + moves[event.key]))];
    event.target.tabIndex = -1;
    after.tabIndex = 0;
    after.focus();
  });

  // One sound at a time.
  function pauseOthers(event) {
    for (const audio of document.querySelectorAll("audio")) if (audio !== event.target) audio.pause();
  }

  // Events of media do not bubble.
  document.addEventListener("play", pauseOthers, true);
  for (const name of ["play", "pause", "seeked", "timeupdate"]) document.addEventListener(name, moveCursors, true);
  document.addEventListener("pause", (event) => { if (event.target === player()) stopAt = Infinity; }, true);
  window.addEventListener("resize", () => figures().forEach(drawAxis));
  new MutationObserver(() => {
    // Gradio names this button otherwise than it is labelled.
    document.querySelector("button.upload-container[aria-label]")?.removeAttribute("aria-label");
    for (const figure of figures()) if (!("ready" in figure.dataset)) prepare(figure);
  }).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["style", "class"] });

  // Without one, or on a page that is not served by HTTPS, the browser offers no microphone.
  const found = navigator.mediaDevices?.enumerateDevices() ?? Promise.resolve([]);
  found.then((devices) => {
    const hasMicrophone = devices.some((device) => device.kind === "audioinput");
    document.body.classList.toggle("no-microphone", !hasMicrophone);
  });
}
