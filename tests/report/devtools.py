"""A page in a real browser, driven through its DevTools pipe: true key presses, media settings, screenshots."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time

import pytest

KEYS = {'Tab': (9, None), 'Enter': (13, '\r'), 'Space': (32, ' '), 'ArrowUp': (38, None), 'ArrowDown': (40, None)}
SHIFT = 8
TIMEOUT = 60  # seconds for one answer


class Page:
    """A file in Chromium, without a window.

    Args:
        path: of the file.
        profile: an empty folder for the browser.
        width, height: of the view in CSS pixels.
        dark: whether the reader prefers a dark page.
        scripts: whether the page may run scripts.
    """

    def __init__(self, path, profile, width=1280, height=900, dark=False, scripts=True):
        self.events, self._numbers, self._rest = [], itertools.count(1), b''
        self._start(profile)
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self._session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.call(f'{domain}.enable')
        phone = width < 600
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.set_media('screen', dark)
        self.call('Emulation.setScriptExecutionDisabled', value=not scripts)
        self.open(path)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._browser.terminate()
        self._browser.wait(timeout=TIMEOUT)
        os.close(self._answers)
        os.close(self._commands)

    def open(self, path):
        """Show another file, once it is loaded."""
        self.events.clear()
        self.call('Page.navigate', url=path.as_uri())
        loaded = 'Page.loadEventFired'
        if not any(event['method'] == loaded for event in self.events):
            next(message for message in self._messages() if message.get('method') == loaded)

    @property
    def problems(self):
        """What the page complained of, and what it tried to load from outside."""
        found = [e['params'] for e in self.events if e['method'] in ('Runtime.exceptionThrown', 'Log.entryAdded')]
        urls = [e['params']['request']['url'] for e in self.events if e['method'] == 'Network.requestWillBeSent']
        return found + [url for url in urls[1:] if not url.startswith('data:')]

    def set_media(self, kind, dark=False):
        """Show the page on a 'screen' or as in 'print'."""
        scheme = {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}
        self.call('Emulation.setEmulatedMedia', media=kind, features=[scheme])

    def press(self, key, shift=False):
        """Press and release a key of KEYS as a keyboard does."""
        code, text = KEYS[key]
        name = ' ' if key == 'Space' else key
        stroke = {'key': name, 'code': key, 'windowsVirtualKeyCode': code, 'modifiers': SHIFT if shift else 0}
        self.call('Input.dispatchKeyEvent', type='keyDown' if text else 'rawKeyDown', text=text or '', **stroke)
        self.call('Input.dispatchKeyEvent', type='keyUp', **stroke)

    def evaluate(self, statements):
        """What ``statements`` of JavaScript return, as JSON gives it; they may await."""
        answer = self.call(
            'Runtime.evaluate', expression=f'(async () => {{ {statements} }})()', awaitPromise=True, returnByValue=True
        )
        assert 'exceptionDetails' not in answer, answer['exceptionDetails']
        return answer['result'].get('value')

    def screenshot(self, path):
        """Write the whole page as a PNG to ``path``."""
        size = self.call('Page.getLayoutMetrics')['cssContentSize']
        clip = {'x': 0, 'y': 0, 'width': size['width'], 'height': min(size['height'], 8000), 'scale': 1}
        answer = self.call('Page.captureScreenshot', captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(answer['data']))

    def call(self, method, **parameters):
        """The result of one DevTools command."""
        number = next(self._numbers)
        command = {'id': number, 'method': method, 'params': parameters}
        if hasattr(self, '_session'):
            command['sessionId'] = self._session
        os.write(self._commands, json.dumps(command).encode() + b'\0')
        answer = next(message for message in self._messages() if message.get('id') == number)
        assert 'error' not in answer, f'{method}: {answer["error"]}'
        return answer['result']

    def _start(self, profile):
        browser = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
        if browser is None:
            pytest.skip('Chromium is not installed: apt-get update && apt-get install -y chromium')
        to_browser, self._commands = os.pipe()
        self._answers, from_browser = os.pipe()
        # The browser reads commands from descriptor 3 and answers to 4.
        pipes = f'3</proc/self/fd/{to_browser} 4>/proc/self/fd/{from_browser}'
        flags = [
            '--headless',
            '--no-sandbox',
            '--disable-gpu',
            '--disable-quic',
            '--no-first-run',
            '--hide-scrollbars',
            '--disable-background-networking',
            '--disable-component-update',
            '--disable-sync',
            '--disable-dev-shm-usage',
            '--remote-debugging-pipe',
            f'--user-data-dir={profile}',
        ]
        self._browser = subprocess.Popen(
            ['sh', '-c', f'exec "$@" {pipes}', 'sh', browser, *flags],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)

    def _messages(self):
        """Messages of the browser as they come; events are kept too."""
        end = time.monotonic() + TIMEOUT
        while True:
            while b'\0' in self._rest:
                line, self._rest = self._rest.split(b'\0', 1)
                message = json.loads(line)
                if 'method' in message:
                    self.events.append(message)
                yield message
            readable, _, _ = select.select([self._answers], [], [], max(0, end - time.monotonic()))
            part = os.read(self._answers, 1 << 20) if readable else b''
            if not part:
                raise TimeoutError('the browser does not answer')
            self._rest += part
